#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string_view>
#include <utility>

#include "base/text.h"

namespace oryx {

// Input that the user can put right: a file, an option, a config. The command line prints it as one line and exits 2.
// The message says what is wrong and what would be right. It may quote the input: line ends and what is no text are
// written as \xNN here, so that it stays one line.
class InputError : public std::runtime_error {
 public:
  explicit InputError(std::string_view message) : std::runtime_error(excerpt(message, kMaxLength)) {}

 private:
  static constexpr size_t kMaxLength = 2000;
};

template <typename... Args>
[[noreturn]] void input_error(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void require(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace oryx
