# What our own programs (tests, benchmarks, examples) are compiled with. Nothing of this reaches a user.
add_library(lowrank_program_options INTERFACE)
target_compile_options(lowrank_program_options INTERFACE
  $<$<CXX_COMPILER_ID:MSVC>:/W4>
  $<$<NOT:$<CXX_COMPILER_ID:MSVC>>:-Wall -Wextra -Wpedantic -Wconversion -Wshadow>
  # GCC 12 warns inside Eigen and inside its own AVX headers, through -isystem, once it has inlined them.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-uninitialized>)
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
  if(LOWRANK_SANITIZE MATCHES "undefined")
    # Eigen 3.4 binds references to, and offsets, the null pointer of an empty matrix without using either.
    target_compile_options(lowrank_program_options INTERFACE -fno-sanitize=null,pointer-overflow)
  endif()
endif()

# Headers cost two seconds in each of our files; a precompiled one pays for all. One object for each level of
# optimization: lowrank_pch for the build type's own, lowrank_pch_O0 and lowrank_pch_O1 for programs that ask for less.
set(lowrank_precompiled
  <Eigen/Core> <algorithm> <array> <filesystem> <functional> <map> <memory> <optional> <sstream> <string> <variant> <vector>)
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/lowrank_pch.cpp "")
foreach(level "" _O0 _O1)
  add_library(lowrank_pch${level} OBJECT EXCLUDE_FROM_ALL ${CMAKE_CURRENT_BINARY_DIR}/lowrank_pch.cpp)
  target_link_libraries(lowrank_pch${level} PRIVATE lowrank lowrank_program_options)
  if(level)
    string(REPLACE "_" "-" flag ${level})
    target_compile_options(lowrank_pch${level} PRIVATE $<$<NOT:$<CXX_COMPILER_ID:MSVC>>:${flag}>)
  endif()
  target_precompile_headers(lowrank_pch${level} PRIVATE ${lowrank_precompiled})
endforeach()

# lowrank_program(name [LEVEL O0|O1] SOURCES ... LIBRARIES ...): an executable of ours. O0: it only has to compile and to
# run once. O1: half of what optimization costs in templates, for most of what it gains.
function(lowrank_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "LEVEL" "SOURCES;LIBRARIES")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE lowrank lowrank_program_options ${arg_LIBRARIES})
  if(arg_LEVEL)
    target_compile_options(${name} PRIVATE $<$<NOT:$<CXX_COMPILER_ID:MSVC>>:-${arg_LEVEL}>)
    target_precompile_headers(${name} REUSE_FROM lowrank_pch_${arg_LEVEL})
  else()
    target_precompile_headers(${name} REUSE_FROM lowrank_pch)
  endif()
endfunction()

# Our programs link what they would otherwise each compile.
target_link_libraries(lowrank_compiled PRIVATE $<BUILD_INTERFACE:lowrank_program_options>)
target_precompile_headers(lowrank_compiled PRIVATE ${lowrank_precompiled})
