# The extractor on a page with everything CMake likes to eat: semicolons, brackets, backslashes, quotes, dollars.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/snippets.cmake)
set(folder ${BINARY_DIR}/snippets_test)
set(program [=[
#include <cstdio>
int main() {
    int a[2] = {1, 2}; auto f = [&]() { return a[1]; };;
    std::puts("${x} $ENV{Y} @z@ \\ \" ; [[ ]] \n");  // ]] \
    return f() - 2;
}
]=])
file(WRITE ${folder}/page.md "# Title\n\n```sh\nls; [ -f x ]\n```\n\n```cpp\n${program}```\ntext\n\n```cpp\n#include <vector>\nstd::vector<int> v{1};\n#include <cstdio>\nif (v[0] != 1) { return 1; }\n```\n")
lowrank_extract_snippets(${folder}/page.md ${folder}/out files)
list(LENGTH files count)
if(NOT count EQUAL 2)
  message(FATAL_ERROR "expected 2 blocks, got ${count}: ${files}")
endif()
file(READ ${folder}/out/line_7.cpp first)
if(NOT "${first}" STREQUAL "// page.md, line 7\n${program}")
  message(FATAL_ERROR "the first block changed:\n${first}")
endif()
file(READ ${folder}/out/line_17.cpp second)
set(expected "// page.md, line 17\n#include <vector>\n#include <cstdio>\n\nint main() {\nstd::vector<int> v{1};\nif (v[0] != 1) { return 1; }\n}\n")
if(NOT "${second}" STREQUAL "${expected}")
  message(FATAL_ERROR "the second block is not as expected:\n${second}")
endif()
