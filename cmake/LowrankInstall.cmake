# Installation: headers, an exported package, a pkg-config file. All of it is independent of the architecture.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(lowrank_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/lowrank)
set(lowrank_targets lowrank)
if(TARGET lowrank_io)
  list(APPEND lowrank_targets lowrank_io)
endif()
install(TARGETS ${lowrank_targets} EXPORT lowrank-targets
        FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT lowrank-targets NAMESPACE lowrank:: DESTINATION ${lowrank_cmake_dir})

file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/lowrank-config.cmake @ONLY CONTENT [[
include(CMakeFindDependencyMacro)
if(NOT TARGET Eigen3::Eigen)
  find_dependency(Eigen3 CONFIG)
  if(Eigen3_VERSION VERSION_LESS 3.4)
    set(lowrank_FOUND FALSE)
    set(lowrank_NOT_FOUND_MESSAGE "lowrank needs Eigen 3.4 or newer, found ${Eigen3_VERSION}")
    return()
  endif()
endif()
# lowrank::io is usable where nlohmann_json is installed; ask for it with COMPONENTS io.
if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json 3.11 CONFIG QUIET)
endif()
if(io IN_LIST lowrank_FIND_COMPONENTS AND NOT TARGET nlohmann_json::nlohmann_json)
  set(lowrank_FOUND FALSE)
  set(lowrank_NOT_FOUND_MESSAGE "lowrank component io needs nlohmann_json 3.11 or newer")
  return()
endif()
include("${CMAKE_CURRENT_LIST_DIR}/lowrank-targets.cmake")
]])
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/lowrank-config-version.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/lowrank-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/lowrank-config-version.cmake
        DESTINATION ${lowrank_cmake_dir})

file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/lowrank.pc @ONLY CONTENT [[
prefix=${pcfiledir}/../..
includedir=${prefix}/@CMAKE_INSTALL_INCLUDEDIR@

Name: lowrank
Description: @PROJECT_DESCRIPTION@
Version: @PROJECT_VERSION@
Requires: eigen3 >= 3.4
Cflags: -I${includedir}
]])
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/lowrank.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
