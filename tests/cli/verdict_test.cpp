#include "cli/verdict.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cli/reproduce_claims.h"

namespace oryx::cli {
namespace {

TEST(Verdict, IntervalsPoolTheVariance) {
  // Deviations +-0.01 and +-0.03 with one degree of freedom each: a variance of 0.001 over two, Student's t 4.303.
  const auto intervals = pooled_intervals({{{"0", 0.99}, {"1", 1.01}}, {{"0", -0.03}, {"1", 0.03}}});
  const double half = 4.303 * std::sqrt(0.002 / 2 / 2);
  EXPECT_NEAR(intervals[0].mean, 1, 1e-12);
  EXPECT_NEAR(intervals[0].high - 1, half, 1e-9);
  EXPECT_NEAR(intervals[1].low, -half, 1e-9);
  EXPECT_TRUE(std::isinf(pooled_intervals({{{"0", 1.0}}})[0].high));
}

TEST(Verdict, GainsByTheirInterval) {
  EXPECT_EQ(judge_gain({0, -0.01, 0.01}, 0.02, true), Verdict::shown);
  EXPECT_EQ(judge_gain({0, -0.03, 0.03}, 0.02, true), Verdict::not_shown);
  EXPECT_EQ(judge_gain({-0.1, -0.11, -0.09}, 0.02, true), Verdict::contradicted);
  EXPECT_EQ(judge_gain({-0.1, -0.11, -0.09}, 0.02, false), Verdict::not_shown);
  EXPECT_EQ(judge_gain({1, -INFINITY, INFINITY}, 0.02, true), Verdict::not_shown);
}

TEST(Verdict, OfAll) {
  using enum Verdict;
  EXPECT_EQ(all_of({shown, shown}), shown);
  EXPECT_EQ(all_of({shown, not_shown}), not_shown);
  EXPECT_EQ(all_of({shown, not_shown, contradicted}), contradicted);
  EXPECT_EQ(all_of({}), not_shown);
}

Json spread(double first, double second) {
  return {{"mean", (first + second) / 2}, {"standard_error", 0}, {"by_seed", {{"0", first}, {"1", second}}}};
}

Json point(const char* model, const char* where, const char* mode, double fraction, double accuracy) {
  return {{"model", model},
          {"where", where},
          {"mode", mode},
          {"attention_fraction", fraction},
          {"accuracy", spread(accuracy - 0.001, accuracy + 0.001)}};
}

// A Transformer and a model with two mixers, `behind` nats behind it, that answers `tail` of the questions with 5% of
// the tokens in attention.
Json verdicts(double tie_ratio, double behind, double transformer, double tail, double tokens_per_parameter) {
  const Json models{{{"name", "t"}, {"mixers", {"attention"}}, {"val_loss", {{"attention", spread(3, 3.01)}}}},
                    {{"name", "o"},
                     {"mixers", {"attention", "mamba2"}},
                     {"tie_ratio", {{"attention", 0.97}, {"recurrent", tie_ratio}}},
                     {"val_loss",
                      {{"attention", spread(3 + behind, 3.01 + behind)},
                       {"recurrent", spread(3.2, 3.21)},
                       {"tail", spread(3.1, 3.11)}}}}};
  const Json rows{{{"model", "o"},
                   {"mode", "attention"},
                   {"passes", 1},
                   {"against_baseline", {{"baseline", "t"}, {"val_loss", spread(behind - 0.001, behind + 0.001)}}}}};
  const Json results{{"tokens_per_parameter", tokens_per_parameter},
                     {"language_modelling", rows},
                     {"retrieval",
                      {point("t", "all", "attention", 1, transformer), point("o", "all", "attention", 1, 0.9),
                       point("o", "all", "recurrent", 0, 0.1), point("o", "tail", "", 0.05, tail),
                       point("o", "tail", "", 0.1, 0.9), point("o", "oracle", "", 0.05, 0.9)}}};
  Json out = Json::object();
  for (const Json& claim : judge_claims(models, results)) out[claim.at("id").get<std::string>()] = claim.at("verdict");
  return out;
}

TEST(Verdict, Claims) {
  const Json good = verdicts(0.91, 0, 0.9, 0.9, 1);
  for (const auto& [id, verdict] : good.items()) EXPECT_EQ(verdict, "shown") << id;
  EXPECT_EQ(good.size(), 4u);
  EXPECT_EQ(verdicts(0.89, 0, 0.9, 0.9, 1)["parameters"], "contradicted");
  EXPECT_EQ(verdicts(0.91, 0.1, 0.9, 0.9, 1)["language_modelling"], "not shown at this scale");
  EXPECT_EQ(verdicts(0.91, 0.1, 0.9, 0.9, 20)["language_modelling"], "contradicted");
  EXPECT_EQ(verdicts(0.91, -0.1, 0.9, 0.9, 20)["language_modelling"], "shown");
  // Neither exactly a tenth of the tokens nor the oracle counts, nor a Transformer that does not retrieve.
  EXPECT_EQ(verdicts(0.91, 0, 0.9, 0.5, 1)["retrieval"], "not shown at this scale");
  EXPECT_EQ(verdicts(0.91, 0, 0.9, 0.5, 20)["retrieval"], "contradicted");
  EXPECT_EQ(verdicts(0.91, 0, 0.3, 0.9, 20)["retrieval"], "not shown at this scale");
}

}  // namespace
}  // namespace oryx::cli
