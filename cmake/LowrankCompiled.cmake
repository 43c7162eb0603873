# lowrank::compiled: the bodies of the library, compiled once, for programs that would rather link than compile them.
#
#     target_link_libraries(engine PRIVATE lowrank::compiled)
#
# Header-only stays the default. The headers then only declare (LOWRANK_COMPILED), so a program must be compiled with the
# instruction set and the settings of exceptions that this library was compiled with; others do not link. With
# nlohmann/json found, the bodies of io are in it too.
file(GLOB_RECURSE lowrank_bodies RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/include CONFIGURE_DEPENDS include/lowrank/*.ipp)
if(NOT TARGET lowrank_io)
  list(FILTER lowrank_bodies EXCLUDE REGEX "^lowrank/io/")
endif()

# One translation unit per room: its files share most of what they include.
set(lowrank_rooms "")
foreach(body IN LISTS lowrank_bodies)
  cmake_path(GET body PARENT_PATH room)
  string(REPLACE "/" "_" room ${room})
  list(APPEND lowrank_rooms ${room})
  string(APPEND lowrank_unit_${room} "#include <${body}>\n")
endforeach()
list(REMOVE_DUPLICATES lowrank_rooms)
set(lowrank_units "")
foreach(room IN LISTS lowrank_rooms)
  set(unit ${CMAKE_CURRENT_BINARY_DIR}/compiled/${room}.cpp)
  file(CONFIGURE OUTPUT ${unit} CONTENT "// Generated: the bodies of one room.\n${lowrank_unit_${room}}" @ONLY)
  list(APPEND lowrank_units ${unit})
endforeach()

if(LOWRANK_COMPILED)
  set(lowrank_compiled_in_all "")
else()
  set(lowrank_compiled_in_all EXCLUDE_FROM_ALL)
endif()
add_library(lowrank_compiled STATIC ${lowrank_compiled_in_all} ${lowrank_units})
add_library(lowrank::compiled ALIAS lowrank_compiled)
set_target_properties(lowrank_compiled PROPERTIES EXPORT_NAME compiled POSITION_INDEPENDENT_CODE ON)
target_link_libraries(lowrank_compiled PUBLIC lowrank $<TARGET_NAME_IF_EXISTS:lowrank_io>)
target_compile_definitions(lowrank_compiled PUBLIC LOWRANK_COMPILED)
