// Passes that compute less than all: hidden states of some tokens alone, and continuations that leave nothing behind.

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "expect_error.h"
#include "model/random_case.h"

namespace oryx {
namespace {

std::vector<int64_t> random_rows(Random& random, int64_t n) {
  const uint64_t one_in = 1 + random.below(5);  // all of them, too
  std::vector<int64_t> rows;
  if (random.below(8) == 0) return rows;
  for (int64_t t = 0; t < n; ++t)
    if (random.below(one_in) == 0) rows.push_back(t);
  return rows;
}

at::Tensor longs(const std::vector<int64_t>& x) {
  return at::tensor(x, at::kLong);
}

// One more sequence of a packed batch: its tokens go behind the others.
MixerSchedule random_sequence(Random& random, int64_t longest, const ModelConfig& config, Tokens& tokens) {
  const int64_t n = random_length(random, longest);
  const Tokens own = random_tokens(random, n, config);
  tokens.insert(tokens.end(), own.begin(), own.end());
  return random_schedule(random, n, config);
}

TEST(Wanted, HiddenStatesAreThoseOfTheWholePass) {
  c10::NoGradGuard no_grad;
  for_each_case(150, [](uint64_t seed) {
    Random random{seed, 21};
    const ModelConfig config = random_config(random);
    const LanguageModel model = random_model(config, seed);
    const auto count = 1 + static_cast<int64_t>(random.below(3));
    std::vector<MixerSchedule> schedules;
    Tokens tokens;
    for (int64_t b = 0; b < count; ++b) schedules.push_back(random_sequence(random, 80, config, tokens));
    SCOPED_TRACE(describe(config, schedules));
    const std::vector<int64_t> rows = random_rows(random, static_cast<int64_t>(tokens.size()));
    std::vector<SequenceSpec> specs;
    specs.reserve(schedules.size());
    for (const MixerSchedule& schedule : schedules) specs.push_back({schedule});
    const auto layers = config.num_hidden_layers;
    const SequenceLayout whole(specs, layers), some(specs, layers, at::kCPU, rows);
    std::vector<Cache> caches;
    std::vector<Cache*> full, partial;
    for (int64_t b = 0; b < 2 * count; ++b) caches.push_back(model.make_cache());
    for (int64_t b = 0; b < count; ++b) full.push_back(&caches[b]), partial.push_back(&caches[count + b]);
    const at::Tensor expected = model.hidden(longs(tokens), whole, full).index_select(0, longs(rows));
    EXPECT_TRUE(close(model.hidden(longs(tokens), some), expected, kExact)) << "without caches";
    EXPECT_TRUE(close(model.hidden(longs(tokens), some, partial), expected, kExact)) << "with caches";
    for (int64_t b = 0; b < count; ++b)
      EXPECT_TRUE(same_contents(*partial[b], *full[b], config, kExact)) << "cache " << b;
  });
}

TEST(Wanted, ContinuationsThatLeaveNothingBehindEqualThoseOfForks) {
  c10::NoGradGuard no_grad;
  for_each_case(150, [](uint64_t seed) {
    Random random{seed, 22};
    const ModelConfig config = random_config(random);
    const LanguageModel model = random_model(config, seed);
    std::vector<Cache> parents;
    std::vector<MixerSchedule> schedules;
    for (int i = 0; i < 2; ++i) {
      const int64_t n = random_length(random, 70);
      schedules.push_back(random_schedule(random, n, config));
      parents.push_back(model.make_cache({.keep_inputs = false}));
      run(model, random_tokens(random, n, config), schedules.back(), &parents.back());
    }
    const std::vector<Cache> before{parents[0].clone(), parents[1].clone()};
    std::vector<const Cache*> past;
    std::vector<Cache> forks;
    std::vector<Cache*> written;
    std::vector<SequenceSpec> specs;
    Tokens tokens;
    const auto count = 1 + static_cast<int64_t>(random.below(4));
    forks.reserve(count);
    for (int64_t b = 0; b < count; ++b) {
      const Cache& parent = parents[random.below(2)];
      schedules.push_back(random_sequence(random, 70, config, tokens));
      specs.push_back({schedules.back(), parent.length()});
      past.push_back(&parent);
      forks.push_back(parent.fork());
      written.push_back(&forks.back());
    }
    SCOPED_TRACE(describe(config, schedules));
    const std::vector<int64_t> rows = random_rows(random, static_cast<int64_t>(tokens.size()));
    const auto layers = config.num_hidden_layers;
    const SequenceLayout whole(specs, layers), some(specs, layers, at::kCPU, rows);
    const at::Tensor expected = model.hidden(longs(tokens), whole, written);
    EXPECT_TRUE(close(model.hidden_after(past, longs(tokens), whole), expected, kExact));
    EXPECT_TRUE(close(model.hidden_after(past, longs(tokens), some), expected.index_select(0, longs(rows)), kExact));
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(same_contents(parents[i], before[i], config, 0)) << "parent " << i;
  });
}

TEST(Wanted, IsChecked) {
  const SequenceSpec three{MixerSchedule::uniform(Mode::attention, 3)};
  using Rows = std::vector<int64_t>;
  EXPECT_INPUT_ERROR(SequenceLayout({three}, 1, at::kCPU, Rows{1, 0}), "ascending order");
  EXPECT_INPUT_ERROR(SequenceLayout({three}, 1, at::kCPU, Rows{1, 1}), "ascending order");
  EXPECT_INPUT_ERROR(SequenceLayout({three}, 1, at::kCPU, Rows{0, 3}), "among the 3");
  EXPECT_INPUT_ERROR(SequenceLayout({three}, 1, at::kCPU, Rows{-1}), "among the 3");
}

TEST(Wanted, LogProbsAreThoseOfTheLogits) {
  for_each_case(20, [](uint64_t seed) {
    Random random{seed, 23};
    const ModelConfig config = random_config(random);
    const LanguageModel model = random_model(config, seed);
    const Tokens tokens = random_tokens(random, random_length(random, 80), config);
    const auto n = static_cast<int64_t>(tokens.size());
    const at::Tensor hidden = run(model, tokens, random_schedule(random, n, config));
    const at::Tensor targets = longs(random_tokens(random, n, config));
    const at::Tensor p = model.logits(hidden).log_softmax(-1);
    const auto [log_probs, best] = model.log_probs(hidden, targets);
    EXPECT_TRUE(close(log_probs, p.gather(1, targets.unsqueeze(1)), kExact));
    EXPECT_TRUE(close(best, p.amax(-1), kExact));
    EXPECT_FALSE(log_probs.requires_grad());
  });
}

}  // namespace
}  // namespace oryx
