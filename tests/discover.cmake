# Lists the test cases of a doctest program as tests of ctest, after each build of the program.
#
# A test is run by a filter in which every character that CMake or doctest reads specially is a "?", so that names may
# hold commas, semicolons, brackets and quotes.
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND ${PROGRAM} --list-test-cases --no-colors OUTPUT_VARIABLE names ERROR_VARIABLE err
                RESULT_VARIABLE failed)
if(NOT failed EQUAL 0)
  message(FATAL_ERROR "${PROGRAM} --list-test-cases: ${failed}\n${names}${err}")
endif()
string(REPLACE "[" "(" names "${names}")
string(REPLACE "]" ")" names "${names}")
string(REPLACE ";" "," names "${names}")
string(REGEX REPLACE "[\\\\\"$]" "'" names "${names}")
string(REGEX REPLACE "\r?\n" ";" names "${names}")
list(FILTER names EXCLUDE REGEX "^\\(doctest\\) |^=+$|^$")
list(REMOVE_DUPLICATES names)

set(script "")
foreach(name IN LISTS names)
  string(REGEX REPLACE "[](),;'\"\\$[]" "?" filter "${name}")
  string(APPEND script "add_test([==[${LABEL}: ${name}]==] [==[${PROGRAM}]==] [==[--test-case=${filter}]==])\n"
    "set_tests_properties([==[${LABEL}: ${name}]==] PROPERTIES LABELS ${LABEL} TIMEOUT 600 WORKING_DIRECTORY [==[${FOLDER}]==] "
    "SKIP_REGULAR_EXPRESSION [==[LOWRANK_SHARED is not set]==] FAIL_REGULAR_EXPRESSION [==[test cases: +0 ]==])\n")
endforeach()
if(script STREQUAL "")
  message(FATAL_ERROR "${PROGRAM} has no test cases")
endif()
file(WRITE ${OUTPUT} "${script}")
