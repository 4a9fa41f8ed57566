#include "eval/scoring.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/progress.h"
#include "base/random.h"
#include "eval/recall.h"

namespace oryx {
namespace {

LanguageModel small() {
  ModelConfig c = preset("oryx-gdn-tiny");
  c.vocab_size = 40, c.num_hidden_layers = 2, c.hidden_size = 32, c.num_attention_heads = c.num_key_value_heads = 2;
  c.head_dim = c.value_head_dim = 8, c.intermediate_size = 64, c.initializer_range = 0.2;
  LanguageModel model = LanguageModel::random(c, 3);
  model.to_double();
  return model;
}

std::vector<int64_t> tokens(uint64_t seed, int64_t n) {
  Random draw{seed};
  std::vector<int64_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<int64_t>(draw.below(40)));
  return out;
}

ScoringRequest request(const LanguageModel& model, uint64_t seed, int64_t n, const char* schedule, int64_t first = 1) {
  return {tokens(seed, n), ScheduleSpec::parse(schedule).resolve(n, model.config()).slice(0, n - 1), first};
}

TEST(Scoring, EqualsTheLogitsOfEachSequenceAlone) {
  c10::NoGradGuard no_grad;
  const LanguageModel model = small();
  std::vector<ScoringRequest> requests{request(model, 1, 30, "alternate:4"), request(model, 2, 1, "attention"),
                                       request(model, 3, 300, "recurrent:..100,attention:100.."),
                                       request(model, 4, 12, "tail:0.5", 9), request(model, 5, 2, "recurrent")};
  for (int64_t batch : {1, 100, 100000}) {
    const auto results = score_sequences(model, requests, batch);
    for (size_t i = 0; i < requests.size(); ++i) {
      const auto& r = requests[i];
      const auto n = static_cast<int64_t>(r.tokens.size());
      ASSERT_EQ(results[i].logprobs.size(), n - r.first_scored);
      if (n < 2) continue;
      const std::vector<int64_t> read(r.tokens.begin(), r.tokens.end() - 1);
      const SequenceLayout layout({{r.schedule}}, model.config().num_hidden_layers);
      const at::Tensor logits = model.logits(model.hidden(at::tensor(read, at::kLong), layout));
      const at::Tensor p = at::log_softmax(logits, -1);
      bool greedy = true;
      for (int64_t t = r.first_scored; t < n; ++t) {
        EXPECT_NEAR(results[i].logprobs[t - r.first_scored], p[t - 1][r.tokens[t]].item<double>(), 1e-10);
        greedy &= logits[t - 1].argmax().item<int64_t>() == r.tokens[t];
      }
      EXPECT_EQ(results[i].greedy, greedy);
    }
  }
}

TEST(Scoring, GreedyContinuationIsSeenAsGreedy) {
  c10::NoGradGuard no_grad;
  const LanguageModel model = small();
  auto ids = tokens(9, 5);
  for (int i = 0; i < 4; ++i) {
    const auto n = static_cast<int64_t>(ids.size());
    const SequenceLayout layout({{MixerSchedule::uniform(Mode::recurrent, n)}}, model.config().num_hidden_layers);
    ids.push_back(model.logits(model.hidden(at::tensor(ids, at::kLong), layout))[n - 1].argmax().item<int64_t>());
  }
  ScoringRequest r{ids, MixerSchedule::uniform(Mode::recurrent, 8), 5};
  EXPECT_TRUE(score_sequences(model, {r})[0].greedy);
  r.tokens[7] = (r.tokens[7] + 1) % 40;
  EXPECT_FALSE(score_sequences(model, {r})[0].greedy);
}

TEST(Scoring, Errors) {
  const LanguageModel model = small();
  EXPECT_THROW(score_sequences(model, {{{1, 2, 3}, MixerSchedule::uniform(Mode::attention, 3), 1}}), InputError);
  EXPECT_THROW(score_sequences(model, {{{1, 2, 3}, MixerSchedule::uniform(Mode::attention, 2), 0}}), InputError);
  EXPECT_THROW(score_sequences(model, {{{1, 99, 3}, MixerSchedule::uniform(Mode::attention, 2), 1}}), InputError);
}

TEST(Recall, AnUntrainedModelGuesses) {
  Progress::set_quiet(true);
  RecallTask task;
  task.vocab = 40, task.pairs = 4, task.length = 32;
  const auto result =
      evaluate_recall(small(), task, *schedule_policy(ScheduleSpec::parse("recurrent:..8,attention:8..")), 100, 1);
  EXPECT_EQ(result.examples, 100);
  EXPECT_EQ(result.queries, 400);
  EXPECT_DOUBLE_EQ(result.attention_fraction, 0.75);
  EXPECT_LT(result.accuracy, 0.2);
  task.vocab = 64;
  EXPECT_THROW(evaluate_recall(small(), task, *schedule_policy(ScheduleSpec::parse("attention")), 1, 1), InputError);
}

}  // namespace
}  // namespace oryx
