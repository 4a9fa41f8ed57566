#include "train/step_guard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/random.h"

namespace oryx {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// About normal: the sum of twelve uniforms.
double noise(Random& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += random.uniform();
  return sum;
}

TEST(StepGuard, CountsStepsThatAreNotFinite) {
  StepGuard guard(3, 6);
  EXPECT_FALSE(guard.judge(1, 1).skip);
  EXPECT_TRUE(guard.judge(kNaN, 1).skip);
  EXPECT_TRUE(guard.judge(1, std::numeric_limits<double>::infinity()).skip);
  EXPECT_FALSE(guard.must_stop());
  EXPECT_FALSE(guard.judge(1, 1).skip);
  EXPECT_EQ(guard.in_a_row(), 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(guard.must_stop());
    guard.judge(kNaN, kNaN);
  }
  EXPECT_TRUE(guard.must_stop());
  EXPECT_EQ(guard.skipped(), 5);
  StepGuard never(0, 6);
  for (int i = 0; i < 100; ++i) never.judge(kNaN, kNaN);
  EXPECT_FALSE(never.must_stop());
}

TEST(StepGuard, FindsOutliersAlone) {
  StepGuard guard(3, 6);
  Random random{1};
  const auto step = [&](double loss, double norm) {
    return guard.judge(loss + 0.1 * noise(random), norm * std::exp(0.2 * noise(random)));
  };
  // Too early to judge, even a loss of 50.
  for (int i = 0; i < 50; ++i) EXPECT_FALSE(step(i == 20 ? 50 : 4, 1).loss_z) << i;
  for (int i = 0; i < 1000; ++i) {
    const auto verdict = step(4 - 1e-3 * i, 1);
    EXPECT_FALSE(verdict.loss_z || verdict.norm_z) << i;
  }
  const auto high = step(3 + 2, 1);
  ASSERT_TRUE(high.loss_z);
  EXPECT_GT(*high.loss_z, 8);
  EXPECT_FALSE(high.norm_z);
  EXPECT_TRUE(step(3 + 2, 1).loss_z);   // not hidden by the one before
  EXPECT_FALSE(step(3 - 2, 1).loss_z);  // low losses are no trouble
  EXPECT_TRUE(step(3, 100).norm_z);
  StepGuard off(3, 0);
  for (int i = 0; i < 100; ++i) off.judge(4 + 0.1 * noise(random), 1);
  EXPECT_FALSE(off.judge(100, 1).loss_z);
}

TEST(StepGuard, StateGoesOnExactly) {
  StepGuard whole(3, 4), half(3, 4);
  Random random{2};
  for (int i = 0; i < 300; ++i) {
    const double loss = i % 70 == 69 ? 9 : i % 90 == 89 ? kNaN : 4 + 0.1 * noise(random);
    if (i % 7 == 0) {
      StepGuard next(3, 4);
      next.load_state(Json::parse(half.state().dump()));
      half = next;
    }
    const double norm = 1 + random.uniform();
    const auto a = whole.judge(loss, norm), b = half.judge(loss, norm);
    EXPECT_EQ(a.loss_z, b.loss_z);
    EXPECT_EQ(a.norm_z, b.norm_z);
  }
  EXPECT_EQ(whole.state(), half.state());
  EXPECT_EQ(whole.skipped(), 3);
}

}  // namespace
}  // namespace oryx
