#include "base/random.h"

#include <gtest/gtest.h>

#include <vector>

namespace oryx {
namespace {

// An independent statement of SplitMix64 (Steele, Lea, Flood 2014, figure 16), keyed as the header says.
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

TEST(Random, IsSplitMix64OfTheHashedKey) {
  const uint64_t golden = 0x9e3779b97f4a7c15ull;
  uint64_t state = mix(0x243f6a8885a308d3ull ^ mix(7 + golden));
  state = mix(state ^ mix(9 + golden));
  Random random{7, 9};
  for (int i = 1; i <= 5; ++i) EXPECT_EQ(random.next(), mix(state + static_cast<uint64_t>(i) * golden));
}

TEST(Random, DependsOnEveryWordOfTheKeyAndTheirOrder) {
  EXPECT_NE(Random({1, 2}).next(), Random({2, 1}).next());
  EXPECT_NE(Random({1}).next(), Random({1, 0}).next());
  EXPECT_EQ(Random({1, 2}).next(), Random({1, 2}).next());
}

TEST(Random, IsUniform) {
  Random random{42};
  constexpr int kDraws = 100000;
  std::vector<int> counts(7);
  double sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = random.uniform();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    ++counts[random.below(7)];
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * 0.2887 / 316.2);  // five standard errors
  for (int count : counts) EXPECT_NEAR(count, kDraws / 7.0, 5 * 110.7);
  EXPECT_EQ(random.below(1), 0u);
}

}  // namespace
}  // namespace oryx
