// The packed model against the per-token model of naive_model.h, and what follows from their equality.

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <set>

#include "expect_error.h"
#include "model/naive_model.h"
#include "model/random_case.h"

namespace oryx {
namespace {

ModelConfig small_config(Mixer recurrence, int64_t layers) {
  ModelConfig c;
  c.mixers = {Mixer::attention, recurrence};
  c.vocab_size = 13;
  c.hidden_size = 8;
  c.num_hidden_layers = layers;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.head_dim = 4;
  c.value_head_dim = 3;
  c.intermediate_size = 6;
  c.conv_activation = recurrence == Mixer::mamba2 ? "none" : "silu";
  return c;
}

class Exactness : public ::testing::TestWithParam<Mixer> {};
std::string parameter_name(const ::testing::TestParamInfo<Mixer>& info) {
  return mixer_name(info.param);
}
INSTANTIATE_TEST_SUITE_P(Recurrences, Exactness, ::testing::Values(Mixer::mamba2, Mixer::gated_deltanet),
                         parameter_name);

TEST(RandomModels, EqualTheNaiveModel) {
  for_each_case(200, [](uint64_t seed) {
    Random random{seed, 1};
    const ModelConfig config = random_config(random);
    const LanguageModel model = random_model(config, seed);
    const Tokens tokens = random_tokens(random, random_length(random, 150), config);
    const auto n = static_cast<int64_t>(tokens.size());
    const MixerSchedule schedule = random_schedule(random, n, config);
    SCOPED_TRACE(describe(config, {schedule}));
    const NaiveTrace naive = NaiveModel(model).run(tokens, schedule);

    Cache cache = model.make_cache();
    const at::Tensor hidden = run(model, tokens, schedule);
    EXPECT_TRUE(close(hidden, to_tensor(naive.hidden), kExact)) << "hidden";
    EXPECT_TRUE(close(model.logits(hidden), to_tensor(naive.logits), kExact)) << "logits";
    EXPECT_TRUE(close(run(model, tokens, schedule, &cache), to_tensor(naive.hidden), kExact)) << "with a cache";

    Tokens targets = random_tokens(random, n, config);
    Vector losses(n);
    for (int64_t t = 0; t < n; ++t) {
      if (random.below(5) == 0) targets[t] = -100;
      losses[t] = targets[t] < 0 ? 0 : naive.loss(t, targets[t]);
    }
    EXPECT_TRUE(close(model.losses(hidden, at::tensor(targets, at::kLong)), to_tensor(losses), kExact)) << "losses";

    ASSERT_EQ(cache.length(), n);
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      const NaiveLayerTrace& layer = naive.layers[i];
      EXPECT_TRUE(close(cache.keys(i), to_tensor(layer.keys), kExact)) << "keys";
      EXPECT_TRUE(close(cache.values(i), to_tensor(layer.values), kExact)) << "values";
      const auto tail = [&](const std::vector<Vector>& inputs) {
        std::vector<Vector> last(config.conv_kernel - 1, Vector(inputs[0].size(), 0.0));
        for (int64_t back = 1; back < config.conv_kernel && back <= n; ++back)
          last[config.conv_kernel - 1 - back] = inputs[n - back];
        return to_tensor(last).t();
      };
      EXPECT_TRUE(close(cache.key_tail(i), tail(layer.key_inputs), kExact)) << "key tail";
      EXPECT_TRUE(close(cache.value_tail(i), tail(layer.value_inputs), kExact)) << "value tail";
      if (!config.has(Mode::recurrent)) continue;
      EXPECT_TRUE(close(cache.log_decays(i), to_tensor(layer.log_decays), kExact)) << "log decays";
      EXPECT_TRUE(close(cache.writes(i), to_tensor(layer.writes), kExact)) << "writes";
      EXPECT_TRUE(close(cache.state(i), to_tensor(layer.states.back()), kExact)) << "state";
    }
  });
}

// One switch at t, both ways round, for t at the recurrences' chunk edges, one off, and everywhere else.
TEST_P(Exactness, OneSwitchAtEveryToken) {
  const ModelConfig config = small_config(GetParam(), 2);
  const LanguageModel model = random_model(config, 5);
  const NaiveModel naive(model);
  Random random{7};
  const int64_t n = 131;
  const Tokens tokens = random_tokens(random, n, config);
  for (int64_t t = 0; t <= n; ++t)
    for (const auto& [first, second] :
         {std::pair{Mode::attention, Mode::recurrent}, {Mode::recurrent, Mode::attention}}) {
      if (t % 3 != 0 && t % 64 > 1 && t % 64 < 63 && second == Mode::attention) continue;  // thinned out, for time
      const auto schedule = MixerSchedule::from_spans({{0, t, first}, {t, n, second}}, n);
      ASSERT_TRUE(close(run(model, tokens, schedule), to_tensor(naive.run(tokens, schedule).hidden), kExact))
          << schedule.str();
    }
}

TEST_P(Exactness, SwitchesAroundChunkEdgesAndAtEveryToken) {
  const ModelConfig config = small_config(GetParam(), 2);
  const LanguageModel model = random_model(config, 6);
  const NaiveModel naive(model);
  Random random{8};
  const int64_t n = 260;
  const Tokens tokens = random_tokens(random, n, config);
  for (const int64_t shift : {-1, 0, 1})
    for (const int64_t chunk : {1, 64, 128})
      for (const int first : {0, 1}) {
        std::vector<Span> spans;
        for (int64_t begin = 0; begin < n;) {
          const int64_t end = std::min(n, begin == 0 ? std::max<int64_t>(chunk + shift, 1) : begin + chunk);
          spans.push_back({begin, end, (spans.size() + first) % 2 ? Mode::attention : Mode::recurrent});
          begin = end;
        }
        const auto schedule = MixerSchedule::from_spans(spans, n);
        ASSERT_TRUE(close(run(model, tokens, schedule), to_tensor(naive.run(tokens, schedule).hidden), kExact))
            << schedule.str();
      }
}

// The usual hybrids: attention in some layers, the recurrence in the others.
TEST_P(Exactness, HybridsAreSchedules) {
  const ModelConfig config = small_config(GetParam(), 3);
  const LanguageModel model = random_model(config, 9);
  const NaiveModel naive(model);
  Random random{10};
  const Tokens tokens = random_tokens(random, 100, config);
  std::set<double> seen;
  for (const char* text : {"*=recurrent;1=attention", "*=attention;0,2=recurrent", "*=alternate:7;2=recurrent",
                           "*=recurrent;0=tail:0.1;1=random:8:0.5:3", "attention", "recurrent"}) {
    const MixerSchedule schedule = ScheduleSpec::parse(text).resolve(100, config);
    const at::Tensor hidden = run(model, tokens, schedule);
    EXPECT_TRUE(close(hidden, to_tensor(naive.run(tokens, schedule).hidden), kExact)) << text;
    seen.insert(hidden.sum().item<double>());
  }
  // The first two are the same schedule in other words; all others differ.
  EXPECT_EQ(seen.size(), 5u) << "schedules that differ must give results that differ";
}

// A two-mixer model under a pure schedule is the single-mixer model with the same weights.
TEST(RandomModels, PureSchedulesEqualSingleMixerModels) {
  for_each_case(40, [](uint64_t seed) {
    Random random{seed, 2};
    const ModelConfig config = random_config(random, Kind::both);
    const LanguageModel model = random_model(config, seed);
    const int64_t n = random_length(random, 150);
    const Tokens tokens = random_tokens(random, n, config);
    for (const Mode mode : {Mode::attention, Mode::recurrent}) {
      ModelConfig single = config;
      single.mixers = {mode == Mode::attention ? Mixer::attention : *config.recurrent()};
      SCOPED_TRACE(describe(single, {}));
      LanguageModel baseline = random_model(single, seed + 1000);
      for (const auto& [name, w] : baseline.weights()) baseline.set_weight(name, model.weight(name));
      const auto schedule = MixerSchedule::uniform(mode, n);
      EXPECT_TRUE(close(run(model, tokens, schedule), run(baseline, tokens, schedule), 1e-13));
      Cache ours = model.make_cache(), theirs = baseline.make_cache();
      EXPECT_TRUE(close(run(model, tokens, schedule, &ours), run(baseline, tokens, schedule, &theirs), 1e-13));
    }
  });
}

TEST(RandomModels, SequencesOfABatchAreAlone) {
  for_each_case(60, [](uint64_t seed) {
    Random random{seed, 3};
    const ModelConfig config = random_config(random);
    const LanguageModel model = random_model(config, seed);
    std::vector<Tokens> tokens;
    std::vector<MixerSchedule> schedules;
    std::vector<at::Tensor> alone;
    for (uint64_t b = 2 + random.below(4); b > 0; --b) {
      const int64_t n = random.below(6) == 0 ? 0 : random_length(random, 130);
      tokens.push_back(random_tokens(random, n, config));
      schedules.push_back(random_schedule(random, n, config));
      if (n > 0) alone.push_back(run(model, tokens.back(), schedules.back()));
    }
    if (alone.empty()) return;
    SCOPED_TRACE(describe(config, schedules));
    EXPECT_TRUE(close(run(model, tokens, schedules), at::cat(alone), 1e-12));
  });
}

// What other sequences hold cannot leak: changing them changes no bit of this one, all shapes being equal.
TEST(RandomModels, NeighboursOfABatchDoNotMatter) {
  for_each_case(40, [](uint64_t seed) {
    Random random{seed, 4};
    const ModelConfig config = random_config(random);
    const LanguageModel model = random_model(config, seed);
    std::vector<Tokens> tokens;
    std::vector<MixerSchedule> schedules;
    for (int b = 0; b < 3; ++b) {
      const int64_t n = random_length(random, 100);
      tokens.push_back(random_tokens(random, n, config));
      schedules.push_back(random_schedule(random, n, config));
    }
    SCOPED_TRACE(describe(config, schedules));
    const auto begin = static_cast<int64_t>(tokens[0].size()), end = begin + static_cast<int64_t>(tokens[1].size());
    const at::Tensor before = run(model, tokens, schedules).slice(0, begin, end);
    for (const int b : {0, 2}) tokens[b] = random_tokens(random, static_cast<int64_t>(tokens[b].size()), config);
    EXPECT_TRUE(at::equal(run(model, tokens, schedules).slice(0, begin, end), before));
  });
}

// float32 and bfloat16 arithmetic against the naive model in double with the same weights. Stated as the relative error
// of all hidden states together: float32 keeps 24 bits, bfloat16 8 (each rounding up to 0.4%), a few dozen roundings a
// layer.
TEST(RandomModels, LowerPrecisionIsClose) {
  double worst_single = 0, worst_half = 0, sum_of_halves = 0;
  int cases = 0;
  for_each_case(60, [&](uint64_t seed) {
    Random random{seed, 5};
    const ModelConfig config = without_steps(random_config(random));
    const int64_t n = random_length(random, 150);
    const Tokens tokens = random_tokens(random, n, config);
    const MixerSchedule schedule = random_schedule(random, n, config);
    SCOPED_TRACE(describe(config, {schedule}));
    LanguageModel model = random_model(config, seed, at::kFloat);
    const at::Tensor exact = to_tensor(NaiveModel(model).run(tokens, schedule).hidden);
    const at::Tensor single = run(model, tokens, schedule);
    EXPECT_EQ(single.scalar_type(), at::kFloat);
    const double single_error = relative_error(single, exact);
    EXPECT_LT(single_error, 1e-4);
    model.set_compute_type(at::kBFloat16);
    const at::Tensor half = run(model, tokens, schedule);
    EXPECT_EQ(half.scalar_type(), at::kBFloat16);
    EXPECT_EQ(model.logits(half).scalar_type(), at::kFloat);
    const double half_error = relative_error(half, exact);
    EXPECT_LT(half_error, 0.1);
    // Converted weights are the same numbers, since these weights are bfloat16 to begin with.
    model.set_compute_type(at::kBFloat16, true);
    EXPECT_TRUE(at::equal(run(model, tokens, schedule), half));
    worst_single = std::max(worst_single, single_error), worst_half = std::max(worst_half, half_error);
    sum_of_halves += half_error, ++cases;
  });
  // One unlucky case may lose a tenth; on average it is a few roundings.
  EXPECT_LT(sum_of_halves / cases, 0.03);
  std::printf("largest relative error: float32 %.2g, bfloat16 %.2g, on average %.2g\n", worst_single, worst_half,
              sum_of_halves / cases);
}

TEST(Inputs, AreChecked) {
  const ModelConfig config = small_config(Mixer::mamba2, 1);
  const LanguageModel model = random_model(config, 1);
  const auto attention = [](int64_t n) { return MixerSchedule::uniform(Mode::attention, n); };
  EXPECT_INPUT_ERROR(run(model, Tokens{0, 13, 1}, attention(3)), "13");
  EXPECT_INPUT_ERROR(run(model, Tokens{0, -1, 1}, attention(3)), "-1");
  EXPECT_INPUT_ERROR(run(model, Tokens{0, 1}, attention(3)), "tokens");
  const SequenceLayout layout({{attention(2)}}, 1);
  EXPECT_INPUT_ERROR(model.hidden(at::tensor({0, 1}, at::kInt), layout), "int64");
  EXPECT_INPUT_ERROR(model.hidden(at::tensor({0, 1}, at::kLong).view({1, 2}), layout), "tokens");
  EXPECT_INPUT_ERROR(model.weight("model.norm"), "model.norm");
  EXPECT_INPUT_ERROR(SequenceLayout({{attention(2).with_layer(3, MixerSchedule::uniform(Mode::recurrent, 2))}}, 3),
                     "3");
  EXPECT_INPUT_ERROR(SequenceLayout({}, 3), "sequence");
  ModelConfig single = config;
  single.mixers = {Mixer::mamba2};
  EXPECT_INPUT_ERROR(run(random_model(single, 1), Tokens{0, 1, 2}, attention(3)), "attention");
  single.mixers = {Mixer::attention};
  EXPECT_INPUT_ERROR(run(random_model(single, 1), Tokens{0}, MixerSchedule::uniform(Mode::recurrent, 1)), "recurrent");
}

TEST(Inputs, NoTokensGiveNoStates) {
  for (const std::vector<Mixer>& mixers :
       {std::vector{Mixer::attention}, {Mixer::mamba2}, {Mixer::attention, Mixer::gated_deltanet}}) {
    ModelConfig config = small_config(Mixer::mamba2, 2);
    config.mixers = mixers;
    const LanguageModel model = random_model(config, 1);
    Cache cache = model.make_cache();
    EXPECT_EQ(run(model, Tokens{}, MixerSchedule()).sizes(), (std::vector<int64_t>{0, 8}));
    EXPECT_EQ(run(model, Tokens{}, MixerSchedule(), &cache).sizes(), (std::vector<int64_t>{0, 8}));
    EXPECT_EQ(cache.length(), 0);
  }
}

}  // namespace
}  // namespace oryx
