# Writes the two headers that list the others: lowrank.hpp, which includes every floor but io, and fwd.hpp, which names
# every public class of these floors without Eigen. Run it after adding a header or a class:
#
#     cmake -P cmake/names.cmake
#
# With -DCHECK=ON it changes nothing and fails if it would; the lint tests do that.
cmake_minimum_required(VERSION 3.25)
get_filename_component(include_dir "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)
set(floors core factor quant prune lora laser)

set(umbrella [=[
// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LOWRANK_HPP
#define LOWRANK_LOWRANK_HPP

/// \file
/// Every floor but io, which needs nlohmann/json and is included by name. Written by cmake/names.cmake.
///
///     #include <lowrank/lowrank.hpp>
///     auto s = lowrank::svd(w);                       // once per weight
///     auto best = s.truncate(8);                      // any rank after that
///
/// docs/index.md says which header holds what.

]=])
set(forward [=[
// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FWD_HPP
#define LOWRANK_FWD_HPP

/// \file
/// The name of every class, for headers that hold pointers and references only. Includes neither Eigen nor containers.
/// Written by cmake/names.cmake.
///
///     #include <lowrank/fwd.hpp>
///     class engine {
///         std::unique_ptr<lowrank::any_operator<float>> base_;
///     };

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/scalar.hpp>

namespace lowrank::inline LOWRANK_ABI {
]=])

# names_of(header result): the forward declarations of its public classes. A class template whose constraint is more
# than the scalar vocabulary cannot be declared without its header and is left out.
function(names_of header result)
  file(READ ${header} text)
  string(REGEX REPLACE "(struct|class) \\[\\[nodiscard\\]\\] " "\\1 " text "${text}")
  string(REGEX MATCHALL
    "\n(namespace detail {|}  // namespace detail|((template <[^\n;]*>|requires[^\n;]*)\n)?(struct|class|enum class) [a-z][a-z0-9_]*( final)?( : [^\n;{]*)? {)"
    marks "${text}")
  set(declarations "")
  set(inside_detail FALSE)
  foreach(mark IN LISTS marks)
    if(mark MATCHES "^\nnamespace detail")
      set(inside_detail TRUE)
    elseif(mark MATCHES "^\n}")
      set(inside_detail FALSE)
    elseif(NOT inside_detail AND NOT mark MATCHES "^\nrequires")
      set(template "")
      if(mark MATCHES "^\n(template <[^\n]*>)\n")
        string(REGEX REPLACE " = [^,<>]*(<[^<>]*>)?" "" template "${CMAKE_MATCH_1}\n")  # defaults belong to the definition
        string(REGEX REPLACE "(template|real|storage|class|typename|int|index|bool|[<>, \n]|[A-Z][A-Za-z0-9]*)" "" other
               "${template}")
        if(NOT other STREQUAL "")
          continue()
        endif()
      endif()
      string(REGEX MATCH "(struct|class|enum class) [a-z0-9_]+" name "${mark}")
      set(base "")
      if(name MATCHES "^enum" AND mark MATCHES "( : [^\n;{]*[^ ]) {")
        set(base "${CMAKE_MATCH_1}")
      endif()
      string(APPEND declarations "${template}${name}${base};\n")
    endif()
  endforeach()
  set(${result} "${declarations}" PARENT_SCOPE)
endfunction()

set(count 0)
foreach(floor IN LISTS floors)
  file(GLOB_RECURSE headers RELATIVE ${include_dir} ${include_dir}/lowrank/${floor}/*.hpp)
  list(FILTER headers EXCLUDE REGEX "/detail/")
  list(SORT headers)
  set(of_floor "")
  foreach(header IN LISTS headers)
    string(APPEND umbrella "#include <${header}>\n")
    names_of(${include_dir}/${header} names)
    string(APPEND of_floor "${names}")
    math(EXPR count "${count} + 1")
  endforeach()
  if(headers)
    string(APPEND umbrella "\n")
  endif()
  if(of_floor)
    string(APPEND forward "\n// ${floor}\n${of_floor}")
  endif()
endforeach()
if(count LESS 20 OR NOT forward MATCHES "\nclass any_operator;\n" OR NOT forward MATCHES "\nenum class errc;\n")
  message(FATAL_ERROR "${count} headers below ${include_dir}: they were not understood")
endif()
string(APPEND umbrella "#endif  // LOWRANK_LOWRANK_HPP\n")
string(APPEND forward "\n}  // namespace lowrank::inline LOWRANK_ABI\n\n#endif  // LOWRANK_FWD_HPP\n")

foreach(pair "lowrank.hpp=umbrella" "fwd.hpp=forward")
  string(REPLACE "=" ";" pair ${pair})
  list(GET pair 0 file)
  list(GET pair 1 variable)
  set(old "")
  if(EXISTS ${include_dir}/lowrank/${file})
    file(READ ${include_dir}/lowrank/${file} old)
  endif()
  if(NOT "${old}" STREQUAL "${${variable}}")
    if(CHECK)
      message(FATAL_ERROR "${file} is not up to date; run: cmake -P cmake/names.cmake")
    endif()
    file(WRITE ${include_dir}/lowrank/${file} "${${variable}}")
    message(STATUS "wrote ${file}")
  endif()
endforeach()
