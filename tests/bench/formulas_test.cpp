#include "bench/formulas.h"

#include <gtest/gtest.h>

namespace oryx::bench {
namespace {

// Counted by hand for T = 2048, 8 heads of 64.
TEST(Formulas, Forward) {
  EXPECT_EQ(attention_flops(2048, 8, 64), 2.0 * 2048 * 2048 * 64 * 8);
  EXPECT_EQ(gated_delta_rule_flops(2048, 8, 64), 2048.0 * 8 * (6 * 64 * 64 + 5 * 64 * 64));
  EXPECT_EQ(ssd_flops(2048, 8, 128), 2048.0 * 8 * (4 * 128 * 128 + 2 * 64 * 128));
}

TEST(Formulas, NoOverflowAtLongLengths) {
  EXPECT_DOUBLE_EQ(attention_flops(1 << 24, 64, 256), 2.0 * 281474976710656.0 * 64 * 256);
}

// Attention for half of the tokens costs half; a recurrence that is read by half keeps its writes.
TEST(Formulas, Mixed) {
  EXPECT_EQ(half_attention_flops(512, 8, 64), attention_flops(512, 8, 64) / 2);
  const double reads = 512.0 * 8 * (2 * 64 * 64 + 2 * kFlopChunk * 64);
  EXPECT_EQ(half_gated_delta_rule_flops(512, 8, 64), gated_delta_rule_flops(512, 8, 64) - reads / 2);
  EXPECT_EQ(half_ssd_flops(512, 8, 64), ssd_flops(512, 8, 64) - reads / 2);
}

TEST(Formulas, Steps) {
  EXPECT_EQ(gated_delta_rule_step_flops(64, 16, 128), 6.0 * 64 * 16 * 128 * 128);
  EXPECT_EQ(ssd_step_flops(1, 16, 128), 4.0 * 16 * 128 * 128);
  EXPECT_EQ(state_step_bytes(1, 16, 128), 2.0 * 4 * 16 * 128 * 128);
  EXPECT_EQ(attention_step_bytes(8192, 16, 128, 2), 2.0 * 8192 * 16 * 128 * 2);
  EXPECT_EQ(attention_step_flops(8192, 16, 128), 4.0 * 8192 * 16 * 128);
}

TEST(Formulas, Linear) {
  EXPECT_EQ(linear_flops(8192, 512, 32000), 2.0 * 8192 * 512 * 32000);
}

}  // namespace
}  // namespace oryx::bench
