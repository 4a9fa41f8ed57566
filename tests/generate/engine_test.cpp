#include "generate/engine.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "generate/small_model.h"

namespace oryx {
namespace {

const std::vector<int64_t> kPrompt{3, 14, 15, 9, 26, 5, 35};

MixerSchedule schedule(const LanguageModel& model, const std::string& text, int64_t length) {
  return ScheduleSpec::parse(text).resolve_open(length, model.config());
}

std::vector<int64_t> generate(const LanguageModel& model, const std::string& text, int n,
                              SamplingOptions options = {}) {
  Generator generator(model, kPrompt, schedule(model, text, 64), options);
  std::vector<int64_t> ids;
  for (int i = 0; i < n; ++i) ids.push_back(generator.next().id);
  return ids;
}

// The whole sequence run again from nothing for every token.
std::vector<int64_t> slow_greedy(const LanguageModel& model, const std::string& text, int n) {
  c10::NoGradGuard no_grad;
  auto ids = kPrompt;
  for (int i = 0; i < n; ++i) {
    const auto length = static_cast<int64_t>(ids.size());
    const SequenceLayout layout({{schedule(model, text, 64).slice(0, length)}}, model.config().num_hidden_layers);
    ids.push_back(model.logits(model.hidden(at::tensor(ids, at::kLong), layout))[length - 1].argmax().item<int64_t>());
  }
  return {ids.begin() + static_cast<int64_t>(kPrompt.size()), ids.end()};
}

TEST(Generator, GreedyEqualsRunningTheWholeSequenceAgain) {
  for (const char* kind : {"oryx-gdn-tiny", "oryx-mamba2-tiny"}) {
    const LanguageModel model = small_model(kind);
    for (const char* text :
         {"attention", "recurrent", "alternate:1", "alternate:5", "recurrent:..7,attention:7..12,recurrent:12..",
          "attention:..10,recurrent:10..", "*=recurrent;1=attention"})
      EXPECT_EQ(generate(model, text, 20), slow_greedy(model, text, 20)) << kind << " " << text;
  }
}

TEST(Generator, ReportsTheMixerThatWroteEachToken) {
  const LanguageModel model = small_model();
  Generator generator(model, kPrompt, schedule(model, "recurrent:..9,attention:9..", 30), {});
  for (int64_t position = 7; position < 20; ++position) {
    const GeneratedToken token = generator.next();
    EXPECT_EQ(token.position, position);
    EXPECT_EQ(token.mode, position - 1 < 9 ? Mode::recurrent : Mode::attention) << position;
    EXPECT_LE(token.logprob, 0);
  }
}

TEST(Generator, LetsGoOfWhatIsNeverNeededAgain) {
  const LanguageModel model = small_model();
  Generator recurrent(model, kPrompt, schedule(model, "attention:..5,recurrent:5..", 60), {});
  EXPECT_FALSE(recurrent.cache().has_kv());
  recurrent.next();
  const int64_t bytes = recurrent.cache_bytes();
  for (int i = 0; i < 30; ++i) recurrent.next();
  EXPECT_EQ(recurrent.cache_bytes(), bytes);
  Generator attention(model, kPrompt, schedule(model, "recurrent:..5,attention:5..", 60), {});
  EXPECT_FALSE(attention.cache().has_state());
  EXPECT_TRUE(attention.cache().has_kv());
}

TEST(Generator, DrawsFollowTheSeedAndTheTemperature) {
  const LanguageModel model = small_model();
  EXPECT_EQ(generate(model, "alternate:2", 30, {1.0, 5}), generate(model, "alternate:2", 30, {1.0, 5}));
  EXPECT_NE(generate(model, "alternate:2", 30, {1.0, 5}), generate(model, "alternate:2", 30, {1.0, 6}));
  EXPECT_EQ(generate(model, "alternate:2", 20, {1e-4, 5}), generate(model, "alternate:2", 20));
}

TEST(Generator, DrawsHaveTheModelsProbabilities) {
  const LanguageModel model = small_model();
  std::map<int64_t, int> counts;
  const int n = 600;
  double p = 0;
  int64_t best = 0;
  {
    Generator greedy(model, kPrompt, schedule(model, "attention", 8), {});
    const auto token = greedy.next();
    best = token.id, p = std::exp(token.logprob);
  }
  for (int i = 0; i < n; ++i) {
    Generator generator(model, kPrompt, schedule(model, "attention", 8), {1.0, static_cast<uint64_t>(i)});
    ++counts[generator.next().id];
  }
  EXPECT_NEAR(counts[best] / double(n), p, 4 * std::sqrt(p * (1 - p) / n));
}

TEST(Generator, Errors) {
  const LanguageModel model = small_model();
  EXPECT_THROW(Generator(model, {}, schedule(model, "attention", 8), {}), InputError);
  EXPECT_THROW(Generator(model, {50}, schedule(model, "attention", 8), {}), InputError);
  EXPECT_THROW(Generator(model, {-1}, schedule(model, "attention", 8), {}), InputError);
  Generator generator(model, kPrompt, schedule(model, "attention", 8), {});
  generator.next();
  generator.next();
  EXPECT_THROW(generator.next(), InputError);  // the schedule covers 8 tokens
}

}  // namespace
}  // namespace oryx
