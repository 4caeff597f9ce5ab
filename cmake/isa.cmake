# The only table of ISA -> compiler flags. A kernel object gets its flags PRIVATE; everything else is built for the
# baseline of the target, pinned below, so that no other object can hold an instruction that an old CPU lacks.

set(GRUC_ISAS portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" OR CMAKE_OSX_ARCHITECTURES STREQUAL "x86_64")
  list(APPEND GRUC_ISAS avx2 avx512)
endif()

if(MSVC)
  set(GRUC_FLAGS_portable "")
  set(GRUC_FLAGS_avx2 /arch:AVX2)
  set(GRUC_FLAGS_avx512 /arch:AVX512)
  set(GRUC_BASELINE_FLAGS /fp:precise)
else()
  set(GRUC_FLAGS_portable "")
  set(GRUC_FLAGS_avx2 -mavx2 -mfma)
  set(GRUC_FLAGS_avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma)
  # No contraction of a*b+c: the promise of one answer names each fma. No traps, no errno: nothing here reads them.
  set(GRUC_BASELINE_FLAGS -ffp-contract=off -fno-math-errno -fno-trapping-math)
  if("avx2" IN_LIST GRUC_ISAS)
    list(APPEND GRUC_BASELINE_FLAGS -march=x86-64 -mtune=generic)
  endif()
endif()

# For objects that list what was built per ISA.
set(GRUC_ISA_DEFINITIONS
  $<$<IN_LIST:avx2,${GRUC_ISAS}>:GRUC_HAVE_AVX2> $<$<IN_LIST:avx512,${GRUC_ISAS}>:GRUC_HAVE_AVX512>)

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
