#include "model/random_case.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"

namespace oryx {

namespace {

// These models are too small for threads, which would only wait for each other, the longer the busier the machine.
class OneThread : public ::testing::Environment {
  void SetUp() override { at::set_num_threads(1); }
};
const auto* const one_thread [[maybe_unused]] = ::testing::AddGlobalTestEnvironment(new OneThread);

}  // namespace

void for_each_case(uint64_t count, const std::function<void(uint64_t seed)>& work) {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  const char* only = std::getenv("ORYX_CASE");
  const uint64_t first = only ? std::strtoull(only, nullptr, 10) : 1, last = only ? first : count;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(fmt::format("run it alone: ORYX_CASE={} and --gtest_filter={}.{}", seed, info->test_suite_name(),
                             info->name()));
    at::set_num_threads(seed % 50 == 0 ? 2 : 1);  // a few cases with threads all the same
    try {
      work(seed);
    } catch (const std::exception& error) {
      ADD_FAILURE() << "threw: " << error.what();
    }
    if (::testing::Test::HasFailure()) break;
  }
  at::set_num_threads(1);
}

int64_t pick(Random& random, const std::vector<int64_t>& from) {
  return from[random.below(from.size())];
}

ModelConfig random_config(Random& random, Kind kind) {
  ModelConfig c;
  const Mixer recurrence = random.below(2) ? Mixer::mamba2 : Mixer::gated_deltanet;
  const uint64_t draw = random.below(6);
  if (kind == Kind::both || draw < 4)
    c.mixers = {Mixer::attention, recurrence};
  else
    c.mixers = {kind == Kind::any && draw == 4 ? Mixer::attention : recurrence};
  c.vocab_size = pick(random, {7, 23, 40});
  c.hidden_size = pick(random, {8, 12, 17});
  c.num_hidden_layers = pick(random, {1, 2, 2, 3});
  c.num_key_value_heads = pick(random, {1, 1, 2, 3});
  c.num_attention_heads = c.num_key_value_heads * pick(random, {1, 2, 4});
  c.rope_theta = static_cast<double>(pick(random, {0, 10000}));
  c.head_dim = c.rope_theta > 0 ? pick(random, {2, 4, 6, 16}) : pick(random, {1, 3, 5, 8, 11});
  c.value_head_dim = pick(random, {1, 3, 4, 7, 16});
  c.intermediate_size = pick(random, {5, 16, 20});
  c.conv_kernel = pick(random, {2, 3, 4, 5});
  c.conv_activation = random.below(2) ? "silu" : "none";
  c.query_activation = random.below(2) ? "silu" : "none";
  c.tie_word_embeddings = random.below(2) == 0;
  c.max_position_embeddings = 64;
  c.validate();
  return c;
}

ModelConfig without_steps(ModelConfig config) {
  if (config.head_dim < 3) config.head_dim = 4;
  config.value_head_dim = std::max<int64_t>(config.value_head_dim, 3);
  return config;
}

LanguageModel random_model(const ModelConfig& config, uint64_t seed, at::ScalarType compute) {
  LanguageModel model = LanguageModel::random(config, seed);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (const WeightSpec& spec : weight_specs(config)) {
    at::Tensor w = at::empty(spec.shape, at::kFloat);
    switch (spec.init) {
      case WeightSpec::Init::normal:
      case WeightSpec::Init::normal_scaled: {
        const bool embedding = spec.name.ends_with("embed_tokens.weight");
        w.normal_(0, embedding ? 1 : 1 / std::sqrt(static_cast<double>(spec.shape[1])), generator);
        break;
      }
      case WeightSpec::Init::ones:  // norms, scales, D
        w.uniform_(0.5, 1.5, generator);
        break;
      case WeightSpec::Init::conv:
        w.uniform_(-1, 1, generator);
        break;
      case WeightSpec::Init::a_log:
        w.uniform_(-3, 2, generator);
        break;
      case WeightSpec::Init::dt_bias:
        w.uniform_(-4, 1, generator);
        break;
    }
    model.set_weight(spec.name, w.to(at::kBFloat16).to(at::kFloat));
  }
  if (compute == at::kDouble)
    model.to_double();
  else
    model.set_compute_type(compute);
  return model;
}

Tokens random_tokens(Random& random, int64_t length, const ModelConfig& config) {
  Tokens tokens(length);
  for (int64_t& token : tokens) token = static_cast<int64_t>(random.below(config.vocab_size));
  return tokens;
}

int64_t random_length(Random& random, int64_t most) {
  if (random.below(3) == 0) return std::min(most, pick(random, {1, 2, 63, 64, 65, 127, 128, 129}));
  return 1 + static_cast<int64_t>(random.below(most));
}

static std::vector<Span> random_spans(Random& random, int64_t length) {
  const auto mode = [](uint64_t bit) { return bit & 1 ? Mode::attention : Mode::recurrent; };
  const uint64_t kind = random.below(7), first = random.below(2);
  if (kind == 0) return {{0, length, mode(first)}};
  if (kind == 1) {
    const auto at = static_cast<int64_t>(random.below(length + 1));
    return {{0, at, mode(first)}, {at, length, mode(first + 1)}};
  }
  std::vector<Span> spans;
  const int64_t shift = pick(random, {-1, 0, 1}), fixed = pick(random, {2, 5, 16, 33});
  for (int64_t begin = 0; begin < length;) {
    int64_t end = begin;
    if (kind == 2)
      end += 1;
    else if (kind == 3)
      end = (begin / 64 + 1) * 64 + shift;
    else if (kind == 4)
      end += fixed;
    else
      end += 1 + static_cast<int64_t>(random.below(kind == 5 ? 4 : 40));
    if (end <= begin) end = begin + 64;
    end = std::min(end, length);
    spans.push_back({begin, end, mode(kind < 5 ? first + spans.size() : random.below(2))});
    begin = end;
  }
  return spans;
}

MixerSchedule random_schedule(Random& random, int64_t length, const ModelConfig& config) {
  if (!config.has(Mode::attention)) return MixerSchedule::uniform(Mode::recurrent, length);
  if (!config.has(Mode::recurrent)) return MixerSchedule::uniform(Mode::attention, length);
  const auto one = [&] {
    return length == 0 ? MixerSchedule() : MixerSchedule::from_spans(random_spans(random, length), length);
  };
  MixerSchedule schedule = one();
  if (random.below(3) == 0)
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
      if (random.below(2)) schedule = schedule.with_layer(layer, one());
  return schedule;
}

std::vector<int64_t> random_split(Random& random, int64_t length) {
  std::vector<int64_t> cuts{0, length};
  for (uint64_t i = random.below(6); i > 0; --i) cuts.push_back(static_cast<int64_t>(random.below(length)));
  std::sort(cuts.begin(), cuts.end());
  std::vector<int64_t> pieces;
  for (size_t i = 1; i < cuts.size(); ++i)
    if (cuts[i] > cuts[i - 1]) pieces.push_back(cuts[i] - cuts[i - 1]);
  return pieces;
}

std::string describe(const ModelConfig& config, const std::vector<MixerSchedule>& schedules) {
  std::string text = config.to_json().dump();
  for (const MixerSchedule& schedule : schedules)
    text += fmt::format("\n{} tokens: {}", schedule.length(), schedule.str());
  return text;
}

at::Tensor run(const LanguageModel& model, const std::vector<Tokens>& tokens,
               const std::vector<MixerSchedule>& schedules, const std::vector<Cache*>& caches) {
  std::vector<SequenceSpec> specs;
  Tokens all;
  for (size_t b = 0; b < tokens.size(); ++b) {
    specs.push_back({schedules[b], caches.empty() ? 0 : caches[b]->length()});
    all.insert(all.end(), tokens[b].begin(), tokens[b].end());
  }
  const SequenceLayout layout(std::move(specs), model.config().num_hidden_layers);
  return model.hidden(at::tensor(all, at::kLong), layout, caches);
}

at::Tensor run(const LanguageModel& model, const Tokens& tokens, const MixerSchedule& schedule, Cache* cache) {
  return run(model, std::vector<Tokens>{tokens}, std::vector<MixerSchedule>{schedule},
             cache ? std::vector<Cache*>{cache} : std::vector<Cache*>{});
}

Tokens part(const Tokens& tokens, int64_t begin, int64_t end) {
  return {tokens.begin() + begin, tokens.begin() + end};
}

::testing::AssertionResult close(const at::Tensor& a, const at::Tensor& b, double tolerance) {
  if (!a.defined() || !b.defined()) return ::testing::AssertionFailure() << "a tensor is missing";
  if (a.numel() != b.numel()) return ::testing::AssertionFailure() << a.sizes() << " against " << b.sizes();
  if (b.numel() == 0) return ::testing::AssertionSuccess();
  const at::Tensor x = a.detach().to(at::kDouble).reshape(-1), y = b.detach().to(at::kDouble).reshape(-1);
  if (!at::isfinite(x).all().item<bool>()) return ::testing::AssertionFailure() << "not finite";
  const at::Tensor difference = (x - y).abs();
  const double largest = y.abs().max().item<double>(), error = difference.max().item<double>();
  if (error <= tolerance * std::max(1.0, largest)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "differ by " << error << " at element " << difference.argmax().item<int64_t>()
                                       << " of " << b.sizes() << "; the largest value is " << largest
                                       << ", the tolerance " << tolerance;
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().to(at::kDouble).reshape(-1), y = b.detach().to(at::kDouble).reshape(-1);
  return ((x - y).norm() / y.norm()).item<double>();
}

::testing::AssertionResult same_contents(const Cache& a, const Cache& b, const ModelConfig& config, double tolerance) {
  if (a.length() != b.length() || a.has_kv() != b.has_kv() || a.has_state() != b.has_state())
    return ::testing::AssertionFailure() << "lengths or parts differ: " << a.length() << " and " << b.length();
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    std::vector<std::tuple<const char*, at::Tensor, at::Tensor>> parts{
        {"key tail", a.key_tail(i), b.key_tail(i)}, {"value tail", a.value_tail(i), b.value_tail(i)}};
    if (a.has_kv()) {
      parts.insert(parts.end(), {{"keys", a.keys(i), b.keys(i)}, {"values", a.values(i), b.values(i)}});
      if (config.has(Mode::recurrent))
        parts.insert(parts.end(),
                     {{"log decays", a.log_decays(i), b.log_decays(i)}, {"writes", a.writes(i), b.writes(i)}});
    }
    if (a.has_state()) parts.emplace_back("state", a.state(i), b.state(i));
    for (const auto& [name, x, y] : parts) {
      const auto result = tolerance > 0 || at::equal(x, y) ? close(x, y, tolerance)
                                                           : ::testing::AssertionFailure()
                                                                 << "not the same bits; largest difference "
                                                                 << (x - y).abs().max().item<double>();
      if (!result) return ::testing::AssertionFailure() << name << " of layer " << i << ": " << result.message();
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace oryx
