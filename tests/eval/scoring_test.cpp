#include "eval/scoring.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/progress.h"
#include "eval/prefix_tree.h"
#include "eval/recall.h"
#include "generate/small_model.h"

namespace oryx {
namespace {

ScoringRequest request(const LanguageModel& model, uint64_t seed, int64_t n, const char* schedule, int64_t first = 1) {
  return {random_tokens(seed, n), ScheduleSpec::parse(schedule).resolve(n, model.config()).slice(0, n - 1), first};
}

TEST(Scoring, EqualsTheLogitsOfEachSequenceAlone) {
  c10::NoGradGuard no_grad;
  const LanguageModel model = small_model();
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
  const LanguageModel model = small_model();
  auto ids = random_tokens(9, 5);
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

// Requests with common beginnings of all kinds: few-shot headers, choices, the same twice, one a beginning of another,
// schedules that part before the tokens do, predictions within the common part.
TEST(Scoring, SharingBeginningsChangesNothing) {
  const LanguageModel model = small_model();
  const auto with = [](std::vector<int64_t> a, const std::vector<int64_t>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  for (const char* text : {"attention", "recurrent", "recurrent:..30,attention:30..", "alternate:7", "tail:0.3",
                           "*=recurrent;1=tail:0.5", "*=attention;0=alternate:16"}) {
    std::vector<ScoringRequest> requests;
    const auto add = [&](std::vector<int64_t> ids, int64_t first) {
      const auto n = static_cast<int64_t>(ids.size());
      const ScheduleSpec spec = ScheduleSpec::parse(text);
      const bool from_end = std::string_view(text).find("tail") != std::string_view::npos;
      const auto schedule = from_end ? spec.resolve(n, model.config()) : spec.resolve_open(n, model.config());
      requests.push_back({std::move(ids), schedule.slice(0, n - 1), first});
    };
    const auto header = random_tokens(100, 25);
    for (uint64_t q = 0; q < 5; ++q) {
      const auto question = with(q == 4 ? random_tokens(101, 9) : header, random_tokens(200 + q, 12 + q));
      for (uint64_t c = 0; c < 4; ++c)
        add(with(question, random_tokens(300 + 10 * q + c, 1 + c)),
            static_cast<int64_t>(question.size()) - (c == 3 ? 6 : 0));
    }
    add(header, 1);
    add(requests[2].tokens, 1);
    std::vector<int64_t> batches{64, 8192};
    for (const int64_t batch : batches) {
      const auto together = score_sequences(model, requests, batch);
      for (size_t i = 0; i < requests.size(); ++i) {
        const auto alone = score_sequences(model, {requests[i]})[0];
        ASSERT_EQ(together[i].logprobs.size(), requests[i].tokens.size() - requests[i].first_scored);
        EXPECT_EQ(together[i].greedy, alone.greedy);
        for (size_t t = 0; t < alone.logprobs.size(); ++t)
          EXPECT_NEAR(together[i].logprobs[t], alone.logprobs[t], 1e-9) << text << ", request " << i;
      }
    }
  }
}

TEST(Scoring, CommonBeginningsAreReadOnce) {
  const LanguageModel model = small_model();
  std::vector<std::vector<int64_t>> ids;
  for (uint64_t c = 0; c < 4; ++c) {
    ids.push_back(random_tokens(1, 50));
    for (int64_t id : random_tokens(10 + c, 5)) ids.back().push_back(id);
  }
  const auto read = [&](const MixerSchedule& last) {
    const MixerSchedule schedule = MixerSchedule::uniform(Mode::recurrent, 55);
    std::vector<ReadSequence> sequences;
    for (const auto& x : ids) sequences.push_back({x, &x == &ids.back() ? &last : &schedule});
    int64_t count = 0;
    read_sharing_prefixes(model, sequences, 8192, false,
                          [&](const at::Tensor& hidden, std::span<const Segment>) { count += hidden.size(0); });
    return count;
  };
  EXPECT_EQ(read(MixerSchedule::uniform(Mode::recurrent, 55)), 50 + 4 * 5);
  // One is served otherwise from its token 20 on.
  EXPECT_EQ(read(ScheduleSpec::parse("recurrent:..20,attention:20..").resolve(55, model.config())), 50 + 3 * 5 + 35);
}

TEST(Scoring, Errors) {
  const LanguageModel model = small_model();
  EXPECT_THROW(score_sequences(model, {{{1, 2, 3}, MixerSchedule::uniform(Mode::attention, 3), 1}}), InputError);
  EXPECT_THROW(score_sequences(model, {{{1, 2, 3}, MixerSchedule::uniform(Mode::attention, 2), 0}}), InputError);
  EXPECT_THROW(score_sequences(model, {{{1, 99, 3}, MixerSchedule::uniform(Mode::attention, 2), 1}}), InputError);
}

TEST(Recall, AnUntrainedModelGuesses) {
  Progress::set_quiet(true);
  RecallTask task;
  task.vocab = 40, task.pairs = 4, task.length = 32;
  const auto result = evaluate_recall(small_model(), task,
                                      *schedule_policy(ScheduleSpec::parse("recurrent:..8,attention:8..")), 100, 1);
  EXPECT_EQ(result.examples, 100);
  EXPECT_EQ(result.queries, 400);
  EXPECT_DOUBLE_EQ(result.attention_fraction, 0.75);
  EXPECT_LT(result.accuracy, 0.2);
  task.vocab = 64;
  EXPECT_THROW(evaluate_recall(small_model(), task, *schedule_policy(ScheduleSpec::parse("attention")), 1, 1),
               InputError);
}

}  // namespace
}  // namespace oryx
