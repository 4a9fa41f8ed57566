#include "base/error.h"

#include <gtest/gtest.h>

namespace oryx {
namespace {

TEST(InputError, StaysOneLineWhateverItQuotes) {
  EXPECT_STREQ(InputError("no preset 'a\nb\r\x01\xff\xc3\xa9'").what(), "no preset 'a\\x0ab\\x0d\\x01\\xff\xc3\xa9'");
  EXPECT_LT(std::string(InputError(std::string(100000, 'x')).what()).size(), 4096u);
}

}  // namespace
}  // namespace oryx
