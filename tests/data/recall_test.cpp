#include "data/recall.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "expect_error.h"

namespace oryx {
namespace {

// Answers every query by looking its key up among the pairs.
double lookup_accuracy(const Batch& batch, const RecallTask& task) {
  int64_t right = 0, asked = 0;
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int64_t* tokens = batch.tokens.data() + batch.cu_seqlens[s];
    const int64_t* targets = batch.targets.data() + batch.cu_seqlens[s];
    std::map<int64_t, int64_t> values;
    for (int64_t i = 0; i < task.pairs; ++i) values[tokens[2 * i]] = tokens[2 * i + 1];
    for (int64_t t = 0; t < task.length; ++t) {
      if (targets[t] == kIgnoredTarget) continue;
      ++asked;
      const auto found = values.find(tokens[t]);
      right += found != values.end() && found->second == targets[t];
    }
  }
  EXPECT_EQ(asked, batch.sequences() * task.pairs);
  return static_cast<double>(right) / static_cast<double>(asked);
}

class RecallTest : public testing::TestWithParam<RecallTask> {};

INSTANTIATE_TEST_SUITE_P(
    Tasks, RecallTest,
    testing::Values(RecallTask{}, RecallTask{.query_placement = "end"}, RecallTask{.vocab = 4, .pairs = 1, .length = 4},
                    RecallTask{.vocab = 5, .pairs = 1, .length = 3, .query_placement = "end"},
                    RecallTask{.vocab = 34, .pairs = 16, .length = 65}, RecallTask{.filler = "values"},
                    RecallTask{.vocab = 8192, .pairs = 64, .length = 1024, .query_placement = "end"}));

TEST_P(RecallTest, IsSolvedByLookup) {
  const RecallSource source(GetParam(), 4 * GetParam().length + 1, 1);
  const Batch batch = source.batch(0);
  EXPECT_EQ(batch.sequences(), 4);
  EXPECT_EQ(static_cast<int64_t>(batch.tokens.size()), source.batch_tokens());
  EXPECT_EQ(batch.cu_seqlens.back(), source.batch_tokens());
  EXPECT_EQ(lookup_accuracy(batch, GetParam()), 1.0);
}

TEST_P(RecallTest, HasTheFormOfTheTask) {
  const RecallTask& task = GetParam();
  const RecallSource source(task, task.length * 3, 2);
  for (int64_t step = 0; step < 20; ++step) {
    for (int64_t s = 0; s < 3; ++s) {
      const RecallExample example = source.example(step, s);
      std::set<int64_t> keys, values, asked;
      for (int64_t i = 0; i < task.pairs; ++i) {
        keys.insert(example.tokens[2 * i]);
        values.insert(example.tokens[2 * i + 1]);
      }
      ASSERT_EQ(static_cast<int64_t>(keys.size()), task.pairs);
      ASSERT_EQ(static_cast<int64_t>(values.size()), task.pairs);
      EXPECT_TRUE(*keys.begin() >= 1 && *keys.rbegin() < task.vocab / 2);
      EXPECT_TRUE(*values.begin() >= task.vocab / 2 && *values.rbegin() < task.vocab);
      ASSERT_EQ(static_cast<int64_t>(example.queries.size()), task.pairs);
      EXPECT_TRUE(std::is_sorted(example.queries.begin(), example.queries.end()));
      for (const int64_t query : example.queries) {
        ASSERT_TRUE(query >= 2 * task.pairs && query < task.length);
        asked.insert(example.tokens[query]);
        EXPECT_NE(example.targets[query], kIgnoredTarget);
        if (task.query_placement == "end") {
          EXPECT_GE(query, task.length - task.pairs);
        } else {
          EXPECT_EQ(query % 2, 0);
        }
      }
      EXPECT_EQ(asked, keys);
      if (task.filler == "values") {
        const auto is_key = [&](int64_t token) { return token < task.vocab / 2; };
        EXPECT_EQ(std::count_if(example.tokens.begin(), example.tokens.end(), is_key), 2 * task.pairs);
      }
      for (const int64_t token : example.tokens) ASSERT_TRUE(token >= 0 && token < task.vocab);
    }
  }
}

TEST_P(RecallTest, IsAFunctionOfSeedStepAndSequence) {
  const RecallTask& task = GetParam();
  const RecallSource a(task, task.length * 8, 1), b(task, task.length * 8, 1), c(task, task.length * 8, 2);
  std::set<std::vector<int64_t>> different;
  for (int64_t step = 9; step >= 0; --step) {
    const Batch batch = a.batch(step);
    EXPECT_EQ(batch.tokens, b.batch(step).tokens);
    EXPECT_EQ(batch.targets, b.batch(step).targets);
    const RecallExample example = b.example(step, 5);
    EXPECT_TRUE(std::equal(example.tokens.begin(), example.tokens.end(), batch.tokens.begin() + 5 * task.length));
    different.insert(batch.tokens);
    different.insert(c.batch(step).tokens);
  }
  EXPECT_EQ(different.size(), 20u);
}

// Where the queries fall must follow the power law: the first place drawn is g with probability p_g.
TEST(Recall, PlacesQueriesByThePowerLaw) {
  const RecallTask task{.vocab = 16, .pairs = 1, .length = 12, .power_a = 0.01};
  constexpr int kDraws = 20'000;
  const RecallSource source(task, task.length, 11);
  std::vector<double> counts(5);
  for (int step = 0; step < kDraws; ++step) ++counts[(source.example(step, 0).queries[0] - 2) / 2];
  double total = 0;
  for (int g = 1; g <= 5; ++g) total += std::pow(g, -0.99);
  for (int g = 1; g <= 5; ++g) {
    const double p = std::pow(g, -0.99) / total;
    EXPECT_NEAR(counts[g - 1] / kDraws, p, 5 * std::sqrt(p * (1 - p) / kDraws)) << "distance " << g;
  }
}

TEST(Recall, DrawsKeysValuesAndFillersUniformly) {
  const RecallTask task{.vocab = 10, .pairs = 2, .length = 8};
  constexpr int kDraws = 20'000;
  const RecallSource source(task, task.length, 12);
  std::vector<int> keys(10), values(10), fillers(10);
  for (int step = 0; step < kDraws; ++step) {
    const RecallExample example = source.example(step, 0);
    ++keys[example.tokens[2]];
    ++values[example.tokens[3]];
    ++fillers[example.tokens[5]];  // odd places hold no query
  }
  const auto check = [&](const std::vector<int>& counts, int first, int end) {
    const double p = 1.0 / (end - first);
    for (int i = 0; i < 10; ++i) {
      const bool inside = i >= first && i < end;
      EXPECT_NEAR(counts[i], inside ? kDraws * p : 0, inside ? 5 * std::sqrt(kDraws * p * (1 - p)) : 0) << i;
    }
  };
  check(keys, 1, 5);
  check(values, 5, 10);
  check(fillers, 0, 10);
}

// Fails when the stream changes, and with it the task that a trained model knows.
TEST(Recall, StreamIsFixed) {
  const RecallExample power = RecallSource({.vocab = 16, .pairs = 2, .length = 10}, 10, 1).example(3, 0);
  EXPECT_EQ(power.tokens, (std::vector<int64_t>{1, 9, 5, 11, 1, 3, 5, 15, 9, 2}));
  EXPECT_EQ(power.targets, (std::vector<int64_t>{-100, -100, -100, -100, 9, -100, 11, -100, -100, -100}));
  EXPECT_EQ(power.queries, (std::vector<int64_t>{4, 6}));
  const RecallTask at_end{.vocab = 16, .pairs = 2, .length = 10, .query_placement = "end"};
  const RecallExample end = RecallSource(at_end, 10, 1).example(3, 0);
  EXPECT_EQ(end.tokens, (std::vector<int64_t>{1, 9, 5, 11, 12, 15, 3, 15, 1, 5}));
  EXPECT_EQ(end.targets, (std::vector<int64_t>{-100, -100, -100, -100, -100, -100, -100, -100, 9, 11}));
  EXPECT_EQ(end.queries, (std::vector<int64_t>{8, 9}));
}

TEST(Recall, RefusesImpossibleTasks) {
  EXPECT_INPUT_ERROR((RecallTask{.pairs = 0}.validate()), "pairs must be at least 1");
  EXPECT_INPUT_ERROR((RecallTask{.vocab = 64}.validate()), "32 pairs need a vocab of at least 66");
  EXPECT_NO_THROW((RecallTask{.vocab = 66}.validate()));
  EXPECT_INPUT_ERROR((RecallTask{.vocab = 3, .pairs = 1}.validate()), "vocab must be 4");
  EXPECT_INPUT_ERROR((RecallTask{.length = 127}.validate()), "length must be 128");
  EXPECT_INPUT_ERROR((RecallTask{.length = 95, .query_placement = "end"}.validate()), "length must be 96");
  EXPECT_INPUT_ERROR((RecallTask{.power_a = 0}.validate()), "power_a");
  EXPECT_INPUT_ERROR((RecallTask{.power_a = std::nan("")}.validate()), "power_a");
  EXPECT_INPUT_ERROR((RecallTask{.query_placement = "start"}.validate()), "query_placement");
  EXPECT_INPUT_ERROR((RecallTask{.filler = "keys"}.validate()), "filler");
  EXPECT_INPUT_ERROR((RecallTask{.pairs = INT64_MAX}.validate()), "pairs");
  EXPECT_INPUT_ERROR(RecallSource({}, 127, 1), "batch_tokens must be 128");
  EXPECT_INPUT_ERROR(RecallSource({}, 256, 1).example(0, 2), "2 sequences");
}

TEST(Recall, TaskIsRecordedAsJson) {
  const RecallTask task{.vocab = 512, .pairs = 8, .length = 1024, .power_a = 0.5, .query_placement = "end"};
  EXPECT_EQ(RecallTask::from_json(parse_json(task.to_json().dump(), "recall.json"), "recall.json"), task);
  EXPECT_EQ(RecallTask::from_json(Json::object(), "recall.json"), RecallTask{});
  const RecallTask values{.filler = "values"};
  EXPECT_EQ(RecallTask::from_json(values.to_json(), "recall.json"), values);
  EXPECT_INPUT_ERROR(RecallTask::from_json(parse_json("{\"pair\": 8}", "recall.json"), "recall.json"), "pairs");
  EXPECT_INPUT_ERROR(RecallTask::from_json(parse_json("{\"pairs\": 1000}", "recall.json"), "recall.json"), "vocab");
  EXPECT_INPUT_ERROR(RecallTask::from_json(parse_json("{\"query_placement\": \"last\"}", "recall.json"), "recall.json"),
                     "end");
}

}  // namespace
}  // namespace oryx
