#include "generate/repeats.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace oryx {
namespace {

// By looking at all that stands before.
std::vector<float> naive(const std::vector<int64_t>& ids) {
  std::vector<float> out;
  const auto together = [&](int64_t end, int64_t other, int64_t n) {
    if (other - n + 1 < 0) return false;
    for (int64_t i = 0; i < n; ++i)
      if (ids[end - i] != ids[other - i]) return false;
    return true;
  };
  const auto scaled = [](int64_t x) { return std::log2(1.0F + static_cast<float>(x)) / 8; };
  for (int64_t t = 0; t < std::ssize(ids); ++t) {
    for (int64_t n = 1; n <= 4; ++n) {
      bool found = false;
      for (int64_t s = 0; s < t; ++s) found |= together(t, s, n);
      out.push_back(found ? 1 : 0);
    }
    int64_t count = 0, first = 0, last = 0;
    for (int64_t s = 0; s < t; ++s) {
      if (ids[s] != ids[t]) continue;
      if (count++ == 0) first = s;
      last = s;
    }
    out.push_back(scaled(count));
    out.push_back(count > 0 ? scaled(t - last) : 0);
    out.push_back(count > 0 ? scaled(first) : 0);
    out.push_back(scaled(t));
  }
  return out;
}

TEST(Repeats, AsALoopFindsThem) {
  Random random{1};
  for (const uint64_t vocab : {1, 2, 5, 40}) {
    std::vector<int64_t> ids(150);
    for (int64_t& id : ids) id = static_cast<int64_t>(random.below(vocab));
    const std::vector<float> expected = naive(ids);
    std::vector<float> whole, pieces;
    Repeats().read(ids, whole);
    EXPECT_EQ(whole, expected);
    Repeats growing;
    for (size_t begin = 0; begin < ids.size();) {
      const size_t n = std::min<size_t>(1 + random.below(9), ids.size() - begin);
      growing.read(std::span(ids).subspan(begin, n), pieces);
      begin += n;
    }
    EXPECT_EQ(pieces, expected);
  }
}

}  // namespace
}  // namespace oryx
