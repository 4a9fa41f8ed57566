# Flags for our own code, and the functions that make a room's library and a test.

add_library(oryx_flags INTERFACE)
# -Wrestrict: g++ 12 warns of std::string's own operator+ (GCC bug 105329).
target_compile_options(oryx_flags INTERFACE -Wall -Wextra -Wno-unknown-pragmas -Wno-psabi $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                       $<$<BOOL:${ORYX_WERROR}>:-Werror>)
target_include_directories(oryx_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
# Header-only: LibTorch carries another fmt in its include folder, and each file must take code and header from one.
target_compile_definitions(oryx_flags INTERFACE FMT_HEADER_ONLY)
if(ORYX_SANITIZE)
  target_compile_options(oryx_flags INTERFACE -fsanitize=${ORYX_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(oryx_flags INTERFACE -fsanitize=${ORYX_SANITIZE})
endif()

# oryx_room(NAME SOURCES ... LIBRARIES ...): the static library oryx_NAME.
function(oryx_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_library(oryx_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(oryx_${name} PUBLIC oryx_flags ${ARG_LIBRARIES})
endfunction()

# oryx_test(NAME SOURCES ... LIBRARIES ... [TIMEOUT seconds]): an executable of GoogleTest cases, one ctest entry.
function(oryx_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE oryx_flags ${ARG_LIBRARIES} GTest::gtest GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE ORYX_SOURCE_DIR="${CMAKE_SOURCE_DIR}" ORYX_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  target_compile_options(${name} PRIVATE -O1)  # tests compile faster, and their time is in the libraries
  add_test(NAME ${name} COMMAND ${name})
  # Threads that spin at barriers ruin each other when tests run side by side.
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT OMP_WAIT_POLICY=passive)
endfunction()
