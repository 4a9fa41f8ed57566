#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace oryx {

// A property that must hold for every input; libFuzzer records the input of an abort.
inline void check(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", property);
  std::abort();
}

// Users see errors as one line.
inline void check_message(std::string_view message) {
  check(!message.empty() && message.size() < 4096, "a message has a reasonable length");
  check(message.find_first_of("\r\n") == std::string_view::npos, "a message is one line");
}

}  // namespace oryx
