# What our own programs (tests, benchmarks, examples) are compiled with. Nothing of this reaches a user.
add_library(lowrank_program_options INTERFACE)
target_compile_options(lowrank_program_options INTERFACE
  $<$<CXX_COMPILER_ID:MSVC>:/W4>
  $<$<NOT:$<CXX_COMPILER_ID:MSVC>>:-Wall -Wextra -Wpedantic -Wconversion -Wshadow>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)  # GCC 12 warns inside Eigen, through -isystem
if(LOWRANK_WERROR)
  target_compile_options(lowrank_program_options INTERFACE $<IF:$<CXX_COMPILER_ID:MSVC>,/WX,-Werror>)
endif()
if(LOWRANK_NATIVE)
  target_compile_options(lowrank_program_options INTERFACE $<$<NOT:$<CXX_COMPILER_ID:MSVC>>:-march=native>)
endif()
if(LOWRANK_SANITIZE)
  target_compile_options(lowrank_program_options INTERFACE
    -fsanitize=${LOWRANK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(lowrank_program_options INTERFACE -fsanitize=${LOWRANK_SANITIZE})
endif()

# Eigen's headers cost two seconds in each of our files; one precompiled header per kind of program pays for all.
if(NOT TARGET lowrank_pch)
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/lowrank_pch.cpp "")
  add_library(lowrank_pch OBJECT ${CMAKE_CURRENT_BINARY_DIR}/lowrank_pch.cpp)
  target_link_libraries(lowrank_pch PRIVATE lowrank lowrank_program_options)
  target_precompile_headers(lowrank_pch PRIVATE <Eigen/Core> <string> <vector> <functional>)
endif()

# lowrank_program(name SOURCES ... LIBRARIES ...): an executable of ours.
function(lowrank_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBRARIES")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE lowrank lowrank_program_options ${arg_LIBRARIES})
  target_precompile_headers(${name} REUSE_FROM lowrank_pch)
endfunction()
