#include "generate/routing.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace oryx {
namespace {

std::vector<double> draw(uint64_t seed, int64_t n) {
  Random random{seed};
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(random.uniform());
  return out;
}

std::string text(std::vector<Span> spans, int64_t length) {
  return MixerSchedule::from_spans(std::move(spans), length).str();
}

std::vector<Mode> decide(const std::vector<double>& scores, RoutingBudget budget) {
  CausalRouter router(budget);
  std::vector<Mode> modes;
  for (double score : scores) modes.push_back(router.next(score));
  return modes;
}

int64_t attended(const std::vector<Mode>& modes) {
  return std::count(modes.begin(), modes.end(), Mode::attention);
}

TEST(RouteKnown, TakesTheChunksOfTheHighestMean) {
  const std::vector<double> scores{0, 0, 9, 1, 3, 3, 8, 0, 1, 1};
  EXPECT_EQ(text(route_known(scores, {0.1, 1}), 10), "recurrent:..2,attention:2..3,recurrent:3..");
  EXPECT_EQ(text(route_known(scores, {0.2, 2}), 10), "recurrent:..2,attention:2..4,recurrent:4..");
  EXPECT_EQ(text(route_known(scores, {0.4, 2}), 10),
            "recurrent:..2,attention:2..4,recurrent:4..6,attention:6..8,recurrent:8..");
  EXPECT_EQ(text(route_known({}, {0.5, 4}), 0), text({}, 0));
}

TEST(RouteKnown, OfEqualScoresTakesTheLater) {
  EXPECT_EQ(text(route_known(std::vector<double>(10, 0.5), {0.3, 1}), 10), "recurrent:..7,attention:7..");
}

TEST(RouteKnown, MeetsTheFractionWithinHalfAChunk) {
  for (int64_t length : {1, 7, 64, 100, 1001})
    for (int64_t chunk : {1, 3, 16, 2000})
      for (double fraction : {0.0, 0.01, 0.3, 0.5, 0.99, 1.0}) {
        const auto spans = route_known(draw(length, length), {fraction, chunk});
        const double tokens =
            MixerSchedule::from_spans(spans, length).attention_fraction(1) * static_cast<double>(length);
        EXPECT_LE(std::abs(tokens - fraction * static_cast<double>(length)), static_cast<double>(chunk) / 2 + 1e-9)
            << length << " " << chunk << " " << fraction;
      }
}

TEST(CausalRouter, NoDecisionDependsOnALaterScore) {
  for (int64_t chunk : {1, 8}) {
    const auto scores = draw(1, 400);
    const auto modes = decide(scores, {0.2, chunk});
    for (int64_t from : {0, 1, 150, 399}) {
      auto changed = scores;
      for (size_t t = from; t < changed.size(); ++t) changed[t] = 10 - changed[t];
      const auto others = decide(changed, {0.2, chunk});
      EXPECT_TRUE(std::equal(modes.begin(), modes.begin() + from, others.begin())) << chunk << " " << from;
    }
  }
}

TEST(CausalRouter, MeetsTheFractionOfSteadyScoresAndOfDriftingOnes) {
  for (int64_t chunk : {1, 16})
    for (double fraction : {0.05, 0.25, 0.75}) {
      auto scores = draw(3, 8000);
      EXPECT_NEAR(attended(decide(scores, {fraction, chunk})) / 8000.0, fraction, 0.02) << chunk;
      for (size_t t = 0; t < scores.size(); ++t) scores[t] -= static_cast<double>(t) / 4000;  // ever lower
      EXPECT_NEAR(attended(decide(scores, {fraction, chunk})) / 8000.0, fraction, 0.06) << chunk;
    }
  EXPECT_EQ(attended(decide(draw(3, 500), {0, 1})), 0);
  EXPECT_EQ(attended(decide(draw(3, 500), {1, 16})), 500);
}

TEST(CausalRouter, FindsTheTokensThatStandOut) {
  auto scores = draw(5, 1000);
  for (int64_t t = 900; t < 940; ++t) scores[t] += 1;
  const auto modes = decide(scores, {0.05, 1});
  EXPECT_GE(std::count(modes.begin() + 900, modes.begin() + 940, Mode::attention), 25);
}

TEST(CausalRouter, GoesOnFromWhatItObserved) {
  const auto scores = draw(7, 300);
  const auto whole = decide(scores, {0.3, 1});
  std::vector<Span> spans;
  for (int64_t t = 0; t < 100; ++t) spans.push_back({t, t + 1, whole[t]});
  CausalRouter router({0.3, 1});
  router.observe({scores.data(), 100}, spans);
  for (int64_t t = 100; t < 300; ++t) EXPECT_EQ(router.next(scores[t]), whole[t]) << t;
}

TEST(CausalRouter, SpendsWhatWasSavedWhereAGainIsExpected) {
  const std::vector<double> high(100, 9.0);
  CausalRouter router({0.04, 1});
  router.save(high);  // 4 tokens
  const std::vector<double> scores{1, -1, 2, 0, 1, 1, 1, 1};
  std::vector<Mode> modes;
  for (double score : scores) modes.push_back(router.next(score));
  constexpr Mode a = Mode::attention, r = Mode::recurrent;
  EXPECT_EQ(modes, (std::vector<Mode>{a, r, a, r, a, a, r, r}));
}

TEST(CausalRouter, WhatWasSavedIsSpentOnUnknownTokensAtMostOnce) {
  for (int64_t chunk : {1, 4}) {
    CausalRouter router({0.1, chunk});
    router.save(std::vector<double>(50, 1.0));
    int64_t count = 0;
    for (int i = 0; i < 100; ++i) count += router.next_unknown() == Mode::attention;
    EXPECT_GE(count, 5) << chunk;
    EXPECT_LT(count, 5 + chunk) << chunk;
  }
}

}  // namespace
}  // namespace oryx
