# Writes lowrank.hpp as one file, the umbrella with each header of ours in place of its first include, and lowrank_io.hpp,
# what io has besides.
#
#     cmake -DINCLUDE_DIR=<source>/include -DOUTPUT_DIR=<folder> -P cmake/amalgamate.cmake
#
# Guards stay, so that the single header and the folder may meet in one program. Everything outside our own #include
# lines is copied byte for byte: text is only ever handled as one quoted string, never as a list.
cmake_minimum_required(VERSION 3.25)
if(NOT INCLUDE_DIR OR NOT OUTPUT_DIR)
  message(FATAL_ERROR "usage: cmake -DINCLUDE_DIR=<folder> -DOUTPUT_DIR=<folder> -P amalgamate.cmake")
endif()

get_filename_component(INCLUDE_DIR "${INCLUDE_DIR}" ABSOLUTE)

set_property(GLOBAL PROPERTY text "")
set_property(GLOBAL PROPERTY taken "")

function(emit piece)
  set_property(GLOBAL APPEND_STRING PROPERTY text "${piece}")
endfunction()

function(take header)
  get_property(taken GLOBAL PROPERTY taken)
  if(header IN_LIST taken)
    return()
  endif()
  set_property(GLOBAL APPEND PROPERTY taken "${header}")
  file(READ "${INCLUDE_DIR}/${header}" rest)
  emit("\n// ---- ${header}\n")
  while(TRUE)
    string(FIND "${rest}" "\n#include <lowrank/" at)
    if(at EQUAL -1)
      break()
    endif()
    math(EXPR at "${at} + 1")  # the newline belongs to the line before
    string(SUBSTRING "${rest}" 0 ${at} before)
    string(SUBSTRING "${rest}" ${at} -1 rest)
    string(FIND "${rest}" "\n" end)
    if(end EQUAL -1)
      message(FATAL_ERROR "${header}: the file ends inside an #include line")
    endif()
    string(SUBSTRING "${rest}" 0 ${end} line)
    string(SUBSTRING "${rest}" ${end} -1 rest)  # the newline stays, so that the next include is found
    if(NOT line MATCHES "^#include <(lowrank/[a-z0-9_/]+\\.[hi]pp)>")
      message(FATAL_ERROR "${header}: cannot read '${line}'")
    endif()
    set(included "${CMAKE_MATCH_1}")
    if(included MATCHES "^lowrank/io/" AND NOT header MATCHES "^lowrank/io/")
      message(FATAL_ERROR "${header}: the single header holds no io, but ${included} is included")
    endif()
    emit("${before}")
    take("${included}")
  endwhile()
  emit("${rest}")
endfunction()

file(STRINGS "${INCLUDE_DIR}/lowrank/core/config.hpp" version REGEX "^#define LOWRANK_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" version "${version}")
list(JOIN version "." version)

set(license "")
if(EXISTS "${INCLUDE_DIR}/../LICENSE")
  file(READ "${INCLUDE_DIR}/../LICENSE" license)
  string(STRIP "${license}" license)
  string(REPLACE "\n" "\n// " license "// ${license}")
  string(REPLACE "// \n" "//\n" license "${license}")
endif()

# write(file, what it holds): what was emitted since the last call.
function(write file what)
  get_property(text GLOBAL PROPERTY text)
  set(title "// lowrank ${version}, ${what}. Needs C++20 and Eigen 3.4 or newer. Generated: edit the sources.\n//\n")
  file(WRITE "${OUTPUT_DIR}/${file}" "// SPDX-License-Identifier: MIT\n${title}${license}\n${text}")
  set_property(GLOBAL PROPERTY text "")
endfunction()

take(lowrank/lowrank.hpp)
write(lowrank.hpp "all floors but io in one file")

file(GLOB_RECURSE io_headers RELATIVE "${INCLUDE_DIR}" "${INCLUDE_DIR}/lowrank/io/*.hpp")
list(FILTER io_headers EXCLUDE REGEX "/detail/")
list(SORT io_headers)
emit("\n#include \"lowrank.hpp\"\n")
foreach(header IN LISTS io_headers)
  take(${header})
endforeach()
write(lowrank_io.hpp "the floor io in one file, which also needs nlohmann/json 3.11 and lowrank.hpp beside it")
