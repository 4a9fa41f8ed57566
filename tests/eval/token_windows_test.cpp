#include "eval/token_windows.h"

#include <gtest/gtest.h>

#include "expect_error.h"

namespace oryx {
namespace {

void expect_windows(int64_t length, int64_t first_scored, int64_t max_length,
                    const std::vector<TokenWindow>& expected) {
  const auto windows = token_windows(length, first_scored, max_length);
  ASSERT_EQ(windows.size(), expected.size());
  for (size_t i = 0; i < windows.size(); ++i) {
    EXPECT_EQ(windows[i].begin, expected[i].begin) << i;
    EXPECT_EQ(windows[i].end, expected[i].end) << i;
    EXPECT_EQ(windows[i].first_scored, expected[i].first_scored) << i;
  }
}

TEST(TokenWindows, AContextLosesItsBeginning) {
  expect_windows(10, 7, 20, {{0, 10, 7}});
  expect_windows(10, 7, 9, {{0, 10, 7}});
  expect_windows(10, 7, 8, {{1, 10, 7}});
  expect_windows(10, 7, 3, {{6, 10, 7}});
  expect_windows(2, 1, 1, {{0, 2, 1}});
}

// The example in lm-evaluation-harness's documentation of loglikelihood_rolling: a prefix, ten tokens, windows of four.
TEST(TokenWindows, ALongContinuationGoesByWindows) {
  expect_windows(11, 1, 4, {{0, 5, 1}, {4, 9, 5}, {6, 11, 9}});
  expect_windows(14, 4, 4, {{3, 8, 4}, {7, 12, 8}, {9, 14, 12}});
  expect_windows(9, 1, 4, {{0, 5, 1}, {4, 9, 5}});
  expect_windows(4, 1, 1, {{0, 2, 1}, {1, 3, 2}, {2, 4, 3}});
}

TEST(TokenWindows, Refusals) {
  EXPECT_INPUT_ERROR(token_windows(3, 0, 4), "a token before those scored");
  EXPECT_INPUT_ERROR(token_windows(3, 3, 4), "one to score");
}

}  // namespace
}  // namespace oryx
