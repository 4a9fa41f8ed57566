#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace oryx {

// The message of the InputError that `work` throws; a failure, and "", when it throws none. Every message must be one
// line of reasonable length.
template <typename Work>
std::string input_error_of(Work&& work) {
  try {
    work();
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_FALSE(message.empty());
    EXPECT_EQ(message.find_first_of("\r\n"), std::string::npos) << message;
    EXPECT_LT(message.size(), 1000u) << message;
    return message;
  }
  ADD_FAILURE() << "expected an InputError";
  return "";
}

// `work` throws an InputError whose message holds `part`.
#define EXPECT_INPUT_ERROR(work, part)                                                \
  do {                                                                                \
    const std::string message_ = ::oryx::input_error_of([&] { (void)(work); });       \
    EXPECT_NE(message_.find(part), std::string::npos) << "the message: " << message_; \
  } while (false)

}  // namespace oryx
