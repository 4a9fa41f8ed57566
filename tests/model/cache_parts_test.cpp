// A cache's parts: sizes, independence of copies, errors, and what failing calls leave behind.

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "expect_error.h"
#include "model/random_case.h"

namespace oryx {
namespace {

ModelConfig config_of(std::vector<Mixer> mixers) {
  ModelConfig c;
  c.mixers = std::move(mixers);
  c.vocab_size = 11;
  c.hidden_size = 8;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 4;
  c.value_head_dim = 6;
  c.intermediate_size = 8;
  return c;
}

const std::vector<Mixer> kBoth{Mixer::attention, Mixer::gated_deltanet};

// Copies of all that a cache of a two-mixer model shows.
std::vector<at::Tensor> contents(const Cache& cache, int64_t layers) {
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < layers; ++i)
    for (const at::Tensor& x : {cache.keys(i), cache.values(i), cache.log_decays(i), cache.writes(i), cache.state(i),
                                cache.key_tail(i), cache.value_tail(i)})
      out.push_back(x.clone());
  return out;
}

class CacheParts : public ::testing::Test {
 protected:
  at::Tensor feed(Cache& cache, int64_t n, Mode mode) const {
    Random random{static_cast<uint64_t>(cache.length())};
    return run(model_, random_tokens(random, n, config_), MixerSchedule::uniform(mode, n), &cache);
  }
  ModelConfig config_ = config_of(kBoth);
  LanguageModel model_ = random_model(config_, 3, at::kFloat);
};

TEST_F(CacheParts, BytesGrowAsModelInfoSays) {
  const ModelInfo info = model_info(config_);
  const int64_t inputs = 2 * 2 * (4 + 6) * 4;  // layers, heads, key and value dims, bytes
  for (const bool keep : {true, false}) {
    const int64_t per_token = info.cache_bytes_per_token + (keep ? inputs : 0);
    Cache cache = model_.make_cache({.keep_inputs = keep});
    EXPECT_EQ(cache.bytes(), info.state_bytes);
    feed(cache, 50, Mode::attention);
    EXPECT_EQ(cache.bytes(), info.state_bytes + 50 * per_token);
    for (int i = 0; i < 100; ++i) {
      feed(cache, 1, i % 2 ? Mode::attention : Mode::recurrent);
      EXPECT_GE(cache.bytes(), info.state_bytes + cache.length() * per_token);
      EXPECT_LE(cache.bytes(), info.state_bytes + 2 * cache.length() * per_token) << "more than twice what it holds";
    }
    Cache stateless = cache.clone();
    stateless.drop_state();
    EXPECT_EQ(cache.bytes() - stateless.bytes(), 2 * 2 * 4 * 6 * 4);
  }
}

TEST_F(CacheParts, BytesStayConstantWithoutKeysAndValues) {
  Cache cache = model_.make_cache();
  feed(cache, 70, Mode::recurrent);
  cache.drop_kv();
  const int64_t before = cache.bytes();
  EXPECT_EQ(before, model_info(config_).state_bytes);
  int64_t fed = 70;
  for (int i = 0; i < 40; ++i) {
    const int64_t n = 1 + 7 * (i % 3);
    feed(cache, n, Mode::recurrent);
    fed += n;
    ASSERT_EQ(cache.bytes(), before);
  }
  EXPECT_EQ(cache.length(), fed) << "tokens are counted all the same";
}

TEST_F(CacheParts, PureModelsHaveTheirParts) {
  const auto parts = [](std::vector<Mixer> mixers) {
    const ModelConfig config = config_of(std::move(mixers));
    Cache cache = random_model(config, 1).make_cache();
    return std::pair{cache.has_kv(), cache.has_state()};
  };
  EXPECT_EQ(parts({Mixer::attention}), std::pair(true, false));
  EXPECT_EQ(parts({Mixer::mamba2}), std::pair(true, true));
  EXPECT_EQ(parts(kBoth), std::pair(true, true));
}

TEST_F(CacheParts, ClonesAreIndependent) {
  Cache first = model_.make_cache();
  feed(first, 20, Mode::attention);
  Cache second = first.clone();
  const Cache untouched = first.clone();
  // The first few tokens fit into spare room, which the clones must not share either.
  for (int i = 0; i < 5; ++i) {
    feed(first, 1, Mode::recurrent);
    EXPECT_TRUE(same_contents(second, untouched, config_, 0));
  }
  Cache third = first.clone();
  const Cache held = first.clone();
  run(model_, Tokens{1, 2, 3}, MixerSchedule::uniform(Mode::attention, 3), &third);
  const auto expected = contents(third, 2);
  run(model_, Tokens{4, 5, 6}, MixerSchedule::uniform(Mode::attention, 3), &first);
  const auto now = contents(third, 2);
  for (size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(at::equal(now[i], expected[i])) << i;
  EXPECT_FALSE(same_contents(first, third, config_, 0));
  first.truncate(25), third.truncate(25);
  EXPECT_TRUE(same_contents(first, held, config_, 1e-5));
  EXPECT_TRUE(same_contents(third, held, config_, 1e-5));
  second.drop_kv();
  EXPECT_TRUE(first.has_kv());
  EXPECT_TRUE(same_contents(untouched, untouched.clone(), config_, 0));
  // What a caller does to a state that was handed out stays with the caller.
  Cache fourth = held.clone();
  for (at::Tensor& state : fourth.state_at(25)) state.zero_();
  for (at::Tensor& state : fourth.state_at(10)) state.zero_();
  EXPECT_TRUE(same_contents(fourth, held, config_, 0));
}

TEST_F(CacheParts, AskingForWhatWasDroppedNamesIt) {
  Cache cache = model_.make_cache();
  feed(cache, 30, Mode::attention);
  Cache no_kv = cache.clone(), no_state = cache.clone(), nothing = cache.clone(), pinned = cache.clone();
  no_kv.drop_kv(), no_state.drop_state(), nothing.drop_kv(), nothing.drop_state();
  EXPECT_INPUT_ERROR(feed(no_kv, 1, Mode::attention), "keys and values were dropped");
  EXPECT_INPUT_ERROR(no_kv.keys(0), "keys and values were dropped");
  EXPECT_INPUT_ERROR(no_kv.values(1), "keys and values were dropped");
  EXPECT_INPUT_ERROR(no_kv.log_decays(1), "keys and values were dropped");
  EXPECT_INPUT_ERROR(no_kv.state_at(29), "keys and values were dropped");
  EXPECT_INPUT_ERROR(no_kv.truncate(29), "keys and values were dropped");
  EXPECT_INPUT_ERROR(feed(no_state, 1, Mode::recurrent), "recurrent state was dropped");
  EXPECT_INPUT_ERROR(no_state.state(0), "recurrent state was dropped");
  EXPECT_INPUT_ERROR(nothing.rebuild_state(), "keys and values were dropped");
  EXPECT_INPUT_ERROR(feed(nothing, 1, Mode::attention), "keys and values were dropped");
  EXPECT_INPUT_ERROR(feed(nothing, 1, Mode::recurrent), "recurrent state was dropped");
  EXPECT_INPUT_ERROR(cache.truncate(31), "30");
  EXPECT_INPUT_ERROR(cache.truncate(-1), "30");
  EXPECT_INPUT_ERROR(cache.state_at(31), "30");
  EXPECT_INPUT_ERROR(cache.state_at(-1), "30");
  EXPECT_TRUE(same_contents(cache, pinned, config_, 0));

  Cache lean = model_.make_cache({.keep_inputs = false});
  feed(lean, 30, Mode::attention);
  const Cache lean_before = lean.clone();
  EXPECT_INPUT_ERROR(lean.truncate(29), "inputs");
  lean.truncate(30);  // nothing to forget
  EXPECT_TRUE(same_contents(lean, lean_before, config_, 0));
  EXPECT_NO_THROW(lean.state_at(11));

  const ModelConfig pure = config_of({Mixer::attention});
  Cache transformer = random_model(pure, 1).make_cache();
  EXPECT_INPUT_ERROR(transformer.rebuild_state(), "no recurrent mixer");
  EXPECT_INPUT_ERROR(transformer.state_at(0), "no recurrent mixer");
  EXPECT_INPUT_ERROR(transformer.state(0), "state");
}

// A failing pass: in the checks, and in the middle, after layers have written.
TEST_F(CacheParts, FailingPassesLeaveTheCacheAsItWas) {
  Cache cache = model_.make_cache(), other = model_.make_cache();
  feed(cache, 33, Mode::attention);
  feed(other, 12, Mode::recurrent);
  const Cache before = cache.clone(), other_before = other.clone();
  const auto one = MixerSchedule::uniform(Mode::recurrent, 1), both = MixerSchedule::uniform(Mode::attention, 2);
  EXPECT_INPUT_ERROR(run(model_, Tokens{11}, one, &cache), "11");
  EXPECT_INPUT_ERROR(run(model_, Tokens{1, 2}, one, &cache), "tokens");
  const SequenceLayout early({{one, 32}}, 2);
  Cache* const pointer = &cache;
  const at::Tensor token = at::empty({1}, at::kLong).fill_(1);
  EXPECT_INPUT_ERROR(model_.hidden(token, early, {&pointer, 1}), "33");
  EXPECT_INPUT_ERROR(model_.hidden(token, early), "cache");
  const SequenceLayout two({{one, 33}, {both.slice(0, 0), 12}}, 2);
  EXPECT_INPUT_ERROR(model_.hidden(token, two, {&pointer, 1}), "1 caches were given for 2 sequences");
  Cache dropped = other.clone();
  dropped.drop_kv();
  EXPECT_INPUT_ERROR(run(model_, {{1}, {2, 3}}, {one, both}, {&cache, &dropped}), "same parts");
  EXPECT_INPUT_ERROR(run(model_, {{1}, {2, 3}}, {one, both}, {&cache, &cache}), "same cache");
  EXPECT_TRUE(same_contents(cache, before, config_, 0));

  // The last layer's last product meets a weight of another shape: all layers have written by then.
  const at::Tensor& weight = model_.weight("model.layers.1.mlp.down_proj.weight");
  const at::Tensor kept = weight.clone();
  weight.set_data(at::empty({1, 1}));
  for (const int64_t n : {1, 40}) {
    const auto schedule = MixerSchedule::uniform(Mode::attention, n);
    EXPECT_ANY_THROW(run(model_, {Tokens(n, 1), Tokens(n, 2)}, {schedule, schedule}, {&cache, &other}));
    EXPECT_TRUE(same_contents(cache, before, config_, 0));
    EXPECT_TRUE(same_contents(other, other_before, config_, 0));
  }
  weight.set_data(kept);
  Cache expected = before.clone();
  EXPECT_TRUE(close(feed(cache, 5, Mode::recurrent), feed(expected, 5, Mode::recurrent), 0));
  EXPECT_TRUE(same_contents(cache, expected, config_, 0));
}

// Weights that want gradients must not make the cache hold on to the graphs of all that it was fed.
TEST_F(CacheParts, HoldsNoGraph) {
  model_.require_gradients(true);
  Cache cache = model_.make_cache();
  for (int i = 0; i < 3; ++i) feed(cache, 4, Mode::recurrent);
  for (int64_t i = 0; i < 2; ++i)
    for (const at::Tensor& x : {cache.keys(i), cache.values(i), cache.log_decays(i), cache.writes(i), cache.state(i),
                                cache.key_tail(i), cache.value_tail(i)})
      EXPECT_FALSE(x.requires_grad());
}

}  // namespace
}  // namespace oryx
