#include "bench/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace oryx::bench {
namespace {

TEST(Statistics, Median) {
  EXPECT_EQ(median({3}), 3);
  EXPECT_EQ(median({5, 1, 3}), 3);
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
}

TEST(Statistics, SpreadIsRelativeToTheMedian) {
  EXPECT_EQ(spread({7}), 0);
  EXPECT_EQ(spread({2, 1, 4}), 1.5);
}

TEST(Growth, FindsThePower) {
  std::vector<double> x{512, 2048, 8192, 32768}, y;
  for (const double p : {0.0, 1.0, 1.5, 2.0}) {
    y.clear();
    for (const double v : x) y.push_back(3e-4 * std::pow(v, p));
    EXPECT_NEAR(growth_exponent(x, y), p, 1e-12);
  }
}

TEST(Growth, IsTheLeastSquaresSlope) {
  // In log2 (0, 0), (1, 2), (2, 1): the sum of dx dy is 1, of dx^2 is 2.
  EXPECT_NEAR(growth_exponent({1, 2, 4}, {1, 4, 2}), 0.5, 1e-12);
}

TEST(Growth, IsNotANumberWithoutTwoLengths) {
  EXPECT_TRUE(std::isnan(growth_exponent({}, {})));
  EXPECT_TRUE(std::isnan(growth_exponent({512}, {1})));
  EXPECT_TRUE(std::isnan(growth_exponent({512, 512}, {1, 2})));
  EXPECT_TRUE(std::isnan(growth_exponent({512, 1024}, {0, 2})));
}

}  // namespace
}  // namespace oryx::bench
