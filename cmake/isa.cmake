# The only table of ISA -> compiler flags. A kernel object gets its flags PRIVATE; everything else is built for the
# baseline of the target, pinned below, so that no other object can hold an instruction that an old CPU lacks.

# Apple's compiler builds for another processor than the machine's where it is told so, and for one at a time here: the
# list of ISAs follows from it.
set(GRUC_PROCESSOR "${CMAKE_SYSTEM_PROCESSOR}")
if(APPLE AND CMAKE_OSX_ARCHITECTURES)
  set(GRUC_PROCESSOR "${CMAKE_OSX_ARCHITECTURES}")
  if(GRUC_PROCESSOR MATCHES ";")
    message(FATAL_ERROR "CMAKE_OSX_ARCHITECTURES: expected one architecture, got '${GRUC_PROCESSOR}'; build one after "
                        "the other and join the libraries with lipo")
  endif()
endif()
set(GRUC_ISAS portable)
if(GRUC_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  list(APPEND GRUC_ISAS avx2 avx512)
elseif(GRUC_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  list(APPEND GRUC_ISAS neon)
endif()

set(GRUC_FLAGS_portable "")
set(GRUC_FLAGS_avx2 -mavx2 -mfma)
set(GRUC_FLAGS_avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma)
set(GRUC_FLAGS_neon "") # in the baseline of every AArch64
# No contraction of a*b+c: the promise of one answer names each fma. No traps, no errno: nothing here reads them.
# And sums stay in their order, whatever flags a project has that this one is part of.
set(GRUC_BASELINE_FLAGS -fno-fast-math -ffp-contract=off -fno-math-errno -fno-trapping-math)
if("avx2" IN_LIST GRUC_ISAS)
  list(APPEND GRUC_BASELINE_FLAGS -march=x86-64 -mtune=generic)
endif()
if(MSVC)
  # Inlining, unrolling and contraction are asked for in words that cl does not know. clang-cl takes them so:
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "CMAKE_CXX_COMPILER: gru_core is built with clang-cl on Windows, not with "
                        "${CMAKE_CXX_COMPILER_ID}; what links it may be built with either")
  endif()
  list(TRANSFORM GRUC_BASELINE_FLAGS PREPEND "/clang:")
  foreach(isa IN ITEMS avx2 avx512)
    list(TRANSFORM GRUC_FLAGS_${isa} PREPEND "/clang:")
  endforeach()
endif()

# For objects that list what was built per ISA.
set(GRUC_ISA_DEFINITIONS
  $<$<IN_LIST:avx2,${GRUC_ISAS}>:GRUC_HAVE_AVX2> $<$<IN_LIST:avx512,${GRUC_ISAS}>:GRUC_HAVE_AVX512>
  $<$<IN_LIST:neon,${GRUC_ISAS}>:GRUC_HAVE_NEON>)

# gruc_add_isa_objects(<name> <source> <list variable>): one OBJECT library per ISA, <name>_<isa>; appends their objects
# to the list.
function(gruc_add_isa_objects name source objects)
  foreach(isa IN LISTS GRUC_ISAS)
    string(TOUPPER ${isa} upper)
    add_library(${name}_${isa} OBJECT ${source})
    target_include_directories(${name}_${isa} PRIVATE
      ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/src/gru_core ${PROJECT_SOURCE_DIR}/include)
    target_compile_definitions(${name}_${isa} PRIVATE GRUC_KERNELS_${upper} GRUC_STATIC)
    target_compile_options(${name}_${isa} PRIVATE ${GRUC_WARNINGS} ${GRUC_BASELINE_FLAGS} ${GRUC_FLAGS_${isa}})
    list(APPEND ${objects} $<TARGET_OBJECTS:${name}_${isa}>)
  endforeach()
  set(${objects} ${${objects}} PARENT_SCOPE)
endfunction()
