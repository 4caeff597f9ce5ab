# What an installation holds besides the library: headers, the CMake package, the pkg-config file. A wheel is laid out as
# a prefix is, with the package's directory for the prefix. Must name no path of the machine: all of it may be moved.
if(GRUC_PYTHON)
  set(CMAKE_INSTALL_LIBDIR lib) # where the extension modules look
  set(CMAKE_INSTALL_BINDIR .)   # a DLL stands beside them
endif()
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(GRUC_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/gru_core)

install(DIRECTORY include/gru_core DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} PATTERN gru_core_cuda.h EXCLUDE)
install(TARGETS gru_core gru_core_headers EXPORT gru_core_targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS gru_core_static EXPORT gru_core_static_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT gru_core_targets NAMESPACE gru_core:: FILE gru_coreTargets.cmake DESTINATION ${GRUC_CMAKE_DIR})
install(EXPORT gru_core_static_targets NAMESPACE gru_core:: FILE gru_coreStaticTargets.cmake
  DESTINATION ${GRUC_CMAKE_DIR})
if(GRUC_CUDA)
  install(FILES include/gru_core/gru_core_cuda.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/gru_core)
  install(TARGETS gru_core_cuda EXPORT gru_core_cuda_targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT gru_core_cuda_targets NAMESPACE gru_core:: FILE gru_coreCudaTargets.cmake
    DESTINATION ${GRUC_CMAKE_DIR})
endif()

# The C++ library that the static library needs, for projects that are C alone.
set(GRUC_CXX_LIBRARIES ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
list(FILTER GRUC_CXX_LIBRARIES INCLUDE REGEX "^(stdc\\+\\+|c\\+\\+|m)$")
list(REMOVE_DUPLICATES GRUC_CXX_LIBRARIES)
configure_package_config_file(cmake/gru_coreConfig.cmake.in gru_coreConfig.cmake
  INSTALL_DESTINATION ${GRUC_CMAKE_DIR} NO_SET_AND_CHECK_MACRO)
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(GRUC_COMPATIBILITY SameMinorVersion)
else()
  set(GRUC_COMPATIBILITY SameMajorVersion)
endif()
write_basic_package_version_file(gru_coreConfigVersion.cmake COMPATIBILITY ${GRUC_COMPATIBILITY})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gru_coreConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/gru_coreConfigVersion.cmake
  DESTINATION ${GRUC_CMAKE_DIR})

set(GRUC_PC_DIR ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH GRUC_PC_LIBDIR ${GRUC_PC_DIR} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH GRUC_PC_INCLUDEDIR ${GRUC_PC_DIR} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(cmake/gru_core.pc.in gru_core.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gru_core.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(GRUC_CUDA)
  configure_file(cmake/gru_core_cuda.pc.in gru_core_cuda.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gru_core_cuda.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
