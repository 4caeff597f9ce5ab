# The CUDA backend: one list of sources, compiled by nvcc, or by the C++ compiler against the CPU shim in tests/cuda.
# Must not touch a target of the CPU library: without GRUC_CUDA there is no trace of any of this.
set(GRUC_CUDA_FOLDER ${PROJECT_SOURCE_DIR}/src/gru_core/cuda)
set(GRUC_CUDA_KERNELS back_kernels.cu elementwise.cu forward_kernels.cu)
# What both backends need of the core stands in either library: neither links the other.
set(GRUC_CUDA_HOST
  ../call.cpp
  ../spec.cpp
  back_layer.cpp
  back_sequences.cpp
  call_frames.cpp
  cuda_api.cpp
  device_weights.cpp
  layer.cpp
  memory.cpp
  plan.cpp
  products.cpp
  sequences.cpp)
set(GRUC_CUDA_SHIM_FOLDER ${PROJECT_SOURCE_DIR}/tests/cuda/shim)
set(GRUC_CUDA_SHIM_SOURCES cublas.cpp engine.cpp error_names.cpp fiber.cpp memory.cpp runtime.cpp)
list(TRANSFORM GRUC_CUDA_KERNELS PREPEND ${GRUC_CUDA_FOLDER}/)
list(TRANSFORM GRUC_CUDA_HOST PREPEND ${GRUC_CUDA_FOLDER}/)
list(TRANSFORM GRUC_CUDA_SHIM_SOURCES PREPEND ${GRUC_CUDA_SHIM_FOLDER}/)

if(GRUC_CUDA_SHIM AND NOT GRUC_CUDA)
  message(FATAL_ERROR "GRUC_CUDA_SHIM: expected GRUC_CUDA=ON beside it, whose library it makes for the CPU")
endif()

if(GRUC_CUDA AND NOT GRUC_CUDA_SHIM)
  # nvcc's own default would be one old architecture. Of each: what runs its minor versions too, and PTX for what comes.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(CMAKE_CUDA_ARCHITECTURES OFF)
  endif()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12)
    message(FATAL_ERROR "CMAKE_CUDA_COMPILER: expected CUDA 12 or later, got ${CMAKE_CUDA_COMPILER_VERSION} "
                        "(${CMAKE_CUDA_COMPILER})")
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
    else()
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 100-virtual)
    endif()
  endif()
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  find_package(CUDAToolkit REQUIRED)

  # cuBLAS is the toolkit's, else that of the package nvidia-cublas. Where pip builds in isolation the latter is not on
  # Python's path, so the folders of packages are asked for too.
  set(GRUC_CUDA_MAJOR ${CUDAToolkit_VERSION_MAJOR})
  if(TARGET CUDA::cublas)
    get_target_property(GRUC_CUBLAS_LIBRARY CUDA::cublas IMPORTED_LOCATION)
    set(GRUC_CUBLAS_INCLUDE ${CUDAToolkit_INCLUDE_DIRS})
  else()
    find_package(Python REQUIRED COMPONENTS Interpreter)
    execute_process(
      COMMAND ${Python_EXECUTABLE} -c "import site, sys, sysconfig as s\n\
print(*sys.path, s.get_path('purelib'), s.get_path('platlib'), site.getusersitepackages(), sep=';')"
      OUTPUT_VARIABLE folders OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    list(REMOVE_ITEM folders "")
    list(TRANSFORM folders APPEND /nvidia)
    find_library(GRUC_CUBLAS_LIBRARY NAMES libcublas.so.${GRUC_CUDA_MAJOR}
      PATHS ${folders} PATH_SUFFIXES cu${GRUC_CUDA_MAJOR}/lib cublas/lib NO_DEFAULT_PATH)
    find_path(GRUC_CUBLAS_INCLUDE NAMES cublas_v2.h
      PATHS ${folders} PATH_SUFFIXES cu${GRUC_CUDA_MAJOR}/include cublas/include NO_DEFAULT_PATH)
  endif()
  if(NOT (GRUC_CUBLAS_LIBRARY AND GRUC_CUBLAS_INCLUDE))
    set(package nvidia-cublas)
    if(GRUC_CUDA_MAJOR EQUAL 12)
      set(package nvidia-cublas-cu12)
    endif()
    message(FATAL_ERROR
      "cuBLAS: expected in the CUDA toolkit (${CUDAToolkit_LIBRARY_DIR}) or as a package of ${Python_EXECUTABLE}; "
      "found in neither. Install the toolkit's, or: ${Python_EXECUTABLE} -m pip install "
      "'${package}==${GRUC_CUDA_MAJOR}.${CUDAToolkit_VERSION_MINOR}.*'")
  endif()
  message(STATUS "cuBLAS: ${GRUC_CUBLAS_LIBRARY}; architectures: ${CMAKE_CUDA_ARCHITECTURES}")
endif()

# gruc_add_cuda_library(<name> <SHARED|STATIC> [SHIM]): the backend as a library that no installation knows of yet. Its
# objects are compiled once, in the directory that asks first: for the shim, .cu files are C++ in that directory alone.
function(gruc_add_cuda_library name kind)
  cmake_parse_arguments(PARSE_ARGV 2 arg "SHIM" "" "")
  set(objects gru_core_cuda_objects)
  if(arg_SHIM)
    set(objects gru_core_cuda_shim_objects)
  endif()
  if(NOT TARGET ${objects})
    add_library(${objects} OBJECT ${GRUC_CUDA_HOST} ${GRUC_CUDA_KERNELS})
    target_include_directories(${objects} PRIVATE ${PROJECT_SOURCE_DIR}/src/gru_core ${PROJECT_SOURCE_DIR}/include)
    target_compile_definitions(${objects} PRIVATE GRUC_CUDA_BUILDING $<$<PLATFORM_ID:Windows>:GRUC_STATIC>)
    target_compile_options(${objects} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${GRUC_WARNINGS};${GRUC_BASELINE_FLAGS}>")
    if(arg_SHIM)
      set_source_files_properties(${GRUC_CUDA_KERNELS} PROPERTIES LANGUAGE CXX)
      target_sources(${objects} PRIVATE ${GRUC_CUDA_SHIM_SOURCES})
      target_include_directories(${objects} BEFORE PRIVATE ${GRUC_CUDA_SHIM_FOLDER})
      target_compile_definitions(${objects} PRIVATE GRUC_CUDA_SHIM)
      target_compile_options(${objects} PRIVATE -Wno-unknown-pragmas) # nvcc's unroll
    else()
      target_include_directories(${objects} SYSTEM PRIVATE ${GRUC_CUBLAS_INCLUDE} ${CUDAToolkit_INCLUDE_DIRS})
      target_compile_options(${objects} PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>
        $<$<AND:$<BOOL:${GRUC_WERROR}>,$<COMPILE_LANGUAGE:CUDA>>:-Werror=all-warnings$<SEMICOLON>-Xcompiler=-Werror>)
    endif()
  endif()

  add_library(${name} ${kind} $<TARGET_OBJECTS:${objects}>)
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${name} PUBLIC gru_core_headers)
  if(arg_SHIM)
    target_compile_definitions(${name} PUBLIC $<BUILD_INTERFACE:GRUC_CUDA_SHIM>)
  else()
    target_link_libraries(${name} PRIVATE ${GRUC_CUBLAS_LIBRARY} CUDA::cudart_static)
    # cuBLAS may be where no linker looks, and what links this library needs none of its own.
    target_link_options(${name} INTERFACE $<$<PLATFORM_ID:Linux>:LINKER:--allow-shlib-undefined>)
  endif()
  if(kind STREQUAL "SHARED" AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_link_options(${name} PRIVATE
      LINKER:--version-script=${GRUC_CUDA_FOLDER}/exports.map LINKER:-z,defs)
    set_target_properties(${name} PROPERTIES LINK_DEPENDS ${GRUC_CUDA_FOLDER}/exports.map)
  endif()
endfunction()

if(GRUC_CUDA)
  set(shim "")
  if(GRUC_CUDA_SHIM)
    set(shim SHIM)
  endif()
  gruc_add_cuda_library(gru_core_cuda SHARED ${shim})
  add_library(gru_core::gru_core_cuda ALIAS gru_core_cuda)
  if(NOT GRUC_PYTHON)
    set_target_properties(gru_core_cuda PROPERTIES SOVERSION ${GRUC_ABI_VERSION})
  elseif(NOT GRUC_CUDA_SHIM) # from gru_c/lib to where pip puts cuBLAS
    set_target_properties(gru_core_cuda PROPERTIES
      INSTALL_RPATH "$ORIGIN/../../nvidia/cu${GRUC_CUDA_MAJOR}/lib;$ORIGIN/../../nvidia/cublas/lib")
  endif()
endif()
