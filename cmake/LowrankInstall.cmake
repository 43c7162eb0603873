# Installation: headers, an exported package, a pkg-config file, all independent of the architecture; and with
# LOWRANK_COMPILED the library lowrank::compiled.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(lowrank_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/lowrank)
set(lowrank_header_sets "")
foreach(set HEADERS declaring bodies)
  list(APPEND lowrank_header_sets FILE_SET ${set} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
endforeach()
install(TARGETS lowrank EXPORT lowrank-targets ${lowrank_header_sets})
install(EXPORT lowrank-targets NAMESPACE lowrank:: DESTINATION ${lowrank_cmake_dir})
if(TARGET lowrank_io)
  install(TARGETS lowrank_io EXPORT lowrank-io-targets ${lowrank_header_sets})
  install(EXPORT lowrank-io-targets NAMESPACE lowrank:: DESTINATION ${lowrank_cmake_dir})
endif()
set(lowrank_arch_independent ARCH_INDEPENDENT)
if(LOWRANK_COMPILED)
  install(TARGETS lowrank_compiled EXPORT lowrank-compiled-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT lowrank-compiled-targets NAMESPACE lowrank:: DESTINATION ${lowrank_cmake_dir})
  set(lowrank_arch_independent "")
endif()

# lowrank::io exists where it was installed and nlohmann_json is found; ask for it with COMPONENTS io.
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
include("${CMAKE_CURRENT_LIST_DIR}/lowrank-targets.cmake")

set(lowrank_io_FOUND FALSE)
if(EXISTS "${CMAKE_CURRENT_LIST_DIR}/lowrank-io-targets.cmake")
  if(NOT TARGET nlohmann_json::nlohmann_json)
    find_package(nlohmann_json 3.11 CONFIG QUIET)
  endif()
  if(TARGET nlohmann_json::nlohmann_json)
    include("${CMAKE_CURRENT_LIST_DIR}/lowrank-io-targets.cmake")
    set(lowrank_io_FOUND TRUE)
  endif()
endif()
# lowrank::compiled exists where it was installed and what it was built with is found.
set(lowrank_compiled_FOUND FALSE)
if(EXISTS "${CMAKE_CURRENT_LIST_DIR}/lowrank-compiled-targets.cmake" AND
   (lowrank_io_FOUND OR NOT EXISTS "${CMAKE_CURRENT_LIST_DIR}/lowrank-io-targets.cmake"))
  include("${CMAKE_CURRENT_LIST_DIR}/lowrank-compiled-targets.cmake")
  set(lowrank_compiled_FOUND TRUE)
endif()
foreach(lowrank_component IN LISTS lowrank_FIND_COMPONENTS)
  if(lowrank_FIND_REQUIRED_${lowrank_component} AND NOT lowrank_${lowrank_component}_FOUND)
    set(lowrank_FOUND FALSE)
    set(lowrank_NOT_FOUND_MESSAGE
        "lowrank has no component ${lowrank_component} here (component io needs nlohmann_json 3.11 or newer, compiled an installation with LOWRANK_COMPILED)")
  endif()
endforeach()
unset(lowrank_component)
]])
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/lowrank-config-version.cmake
  COMPATIBILITY SameMinorVersion ${lowrank_arch_independent})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/lowrank-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/lowrank-config-version.cmake
        DESTINATION ${lowrank_cmake_dir})

# Relocatable: the prefix is two folders above the file itself.
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
