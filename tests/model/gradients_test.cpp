// Gradients through switches: against central differences in fp64, and of a batch against its sequences alone.

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/naive_model.h"
#include "model/random_case.h"
#include "model/recompute.h"

namespace oryx {
namespace {

struct Problem {
  std::vector<Tokens> tokens, targets;
  std::vector<MixerSchedule> schedules;
};

// A larger epsilon keeps the norms' curvature within what differences can follow.
ModelConfig smooth_config(Random& random, Kind kind) {
  ModelConfig config = without_steps(random_config(random, kind));
  config.rms_norm_eps = 1e-2;
  return config;
}

Problem random_problem(Random& random, const ModelConfig& config, int sequences, int64_t most) {
  Problem p;
  for (int b = 0; b < sequences; ++b) {
    const int64_t n = random_length(random, most);
    p.tokens.push_back(random_tokens(random, n, config));
    p.targets.push_back(random_tokens(random, n, config));
    for (int64_t& target : p.targets.back())
      if (random.below(6) == 0) target = -100;
    p.schedules.push_back(random_schedule(random, n, config));
  }
  return p;
}

// The loss of sequences [begin, end) together: the sum over tokens, weighted so that no two tokens weigh the same.
at::Tensor loss(const LanguageModel& model, const Problem& p, size_t begin, size_t end) {
  Tokens targets;
  Vector weights;
  for (size_t b = begin; b < end; ++b)
    for (size_t t = 0; t < p.targets[b].size(); ++t) {
      targets.push_back(p.targets[b][t]);
      weights.push_back(0.1 + 0.05 * static_cast<double>((7 * t + 3 * p.targets[b].size()) % 11));
    }
  const at::Tensor hidden = run(model, {p.tokens.begin() + begin, p.tokens.begin() + end},
                                {p.schedules.begin() + begin, p.schedules.begin() + end});
  return (model.losses(hidden, at::tensor(targets, at::kLong)) * to_tensor(weights)).sum();
}

std::vector<at::Tensor> gradients(LanguageModel& model, const Problem& p, size_t begin, size_t end) {
  model.require_gradients(true);
  for (const auto& [name, w] : model.weights()) w.mutable_grad() = at::Tensor();
  loss(model, p, begin, end).backward();
  std::vector<at::Tensor> out;
  for (const auto& [name, w] : model.weights()) {
    out.push_back(w.grad().defined() ? w.grad().clone() : at::zeros_like(w).detach());
    w.mutable_grad() = at::Tensor();
  }
  model.require_gradients(false);
  return out;
}

// d loss / d h for weights + h * direction, by Richardson's extrapolation of two central differences (error h^4).
double difference(const LanguageModel& model, const Problem& p, const std::vector<at::Tensor>& direction) {
  const c10::NoGradGuard no_grad;
  const auto move = [&](double h) {
    for (size_t i = 0; i < direction.size(); ++i)
      if (direction[i].defined()) model.weights()[i].second.add_(direction[i], h);
  };
  const auto central = [&](double h) {
    move(h);
    const double up = loss(model, p, 0, p.tokens.size()).item<double>();
    move(-2 * h);
    const double down = loss(model, p, 0, p.tokens.size()).item<double>();
    move(h);
    return (up - down) / (2 * h);
  };
  const double h = 5e-5;
  return (4 * central(h / 2) - central(h)) / 3;
}

TEST(Gradients, EqualDirectionalDifferences) {
  for_each_case(60, [](uint64_t seed) {
    Random random{seed, 20};
    const ModelConfig config = smooth_config(random, Kind::any);
    LanguageModel model = random_model(config, seed);
    const Problem p = random_problem(random, config, 1 + static_cast<int>(random.below(2)), 90);
    SCOPED_TRACE(describe(config, p.schedules));
    const auto grads = gradients(model, p, 0, p.tokens.size());
    std::vector<at::Tensor> direction;
    double expected = 0, size = 0;
    for (size_t i = 0; i < grads.size(); ++i) {
      direction.push_back(at::randn_like(grads[i]) / std::sqrt(static_cast<double>(grads[i].numel())));
      expected += (grads[i] * direction[i]).sum().item<double>();
      size += std::abs((grads[i] * direction[i]).sum().item<double>());
    }
    EXPECT_NEAR(difference(model, p, direction), expected, 1e-6 * (size + 1));
  });
}

// One weight after another, so that none hides behind the others, and none that both modes read gets only one's part.
TEST(Gradients, EqualDifferencesForEachWeight) {
  for_each_case(8, [](uint64_t seed) {
    Random random{seed, 21};
    const ModelConfig config = smooth_config(random, Kind::both);
    LanguageModel model = random_model(config, seed);
    const Problem p = random_problem(random, config, 2, 70);
    SCOPED_TRACE(describe(config, p.schedules));
    const auto grads = gradients(model, p, 0, p.tokens.size());
    for (size_t i = 0; i < grads.size(); ++i) {
      std::vector<at::Tensor> direction(grads.size());
      direction[i] = at::randn_like(grads[i]) / std::sqrt(static_cast<double>(grads[i].numel()));
      const double expected = (grads[i] * direction[i]).sum().item<double>();
      EXPECT_NEAR(difference(model, p, direction), expected, 1e-6 * (std::abs(expected) + 1))
          << model.weights()[i].first;
    }
  });
}

TEST(Gradients, OfABatchAreTheSumOfThoseAlone) {
  for_each_case(40, [](uint64_t seed) {
    Random random{seed, 22};
    const ModelConfig config = smooth_config(random, Kind::any);
    LanguageModel model = random_model(config, seed);
    const Problem p = random_problem(random, config, 3, 130);
    SCOPED_TRACE(describe(config, p.schedules));
    const auto batch = gradients(model, p, 0, 3);
    std::vector<at::Tensor> alone;
    for (size_t b = 0; b < 3; ++b) {
      const auto grads = gradients(model, p, b, b + 1);
      for (size_t i = 0; i < grads.size(); ++i)
        if (b == 0)
          alone.push_back(grads[i]);
        else
          alone[i] += grads[i];
    }
    for (size_t i = 0; i < alone.size(); ++i)
      EXPECT_TRUE(close(batch[i], alone[i], kExact)) << model.weights()[i].first;
  });
}

// Under a pure schedule the other mode's own weights get no gradient, and all that are read get one.
TEST(Gradients, ReachWhatTheScheduleReads) {
  for_each_case(10, [](uint64_t seed) {
    Random random{seed, 23};
    const ModelConfig config = smooth_config(random, Kind::both);
    LanguageModel model = random_model(config, seed);
    const auto specs = weight_specs(config);
    for (const Mode mode : {Mode::attention, Mode::recurrent}) {
      Problem p = random_problem(random, config, 1, 40);
      const int64_t n = 40;
      p.tokens = {random_tokens(random, n, config)}, p.targets = {random_tokens(random, n, config)};
      p.schedules = {MixerSchedule::uniform(mode, n)};
      const auto other = mode == Mode::attention ? WeightSpec::Use::recurrent : WeightSpec::Use::attention;
      const auto grads = gradients(model, p, 0, 1);
      for (size_t i = 0; i < grads.size(); ++i) {
        const double size = grads[i].abs().sum().item<double>();
        if (specs[i].use == other) {
          EXPECT_EQ(size, 0) << specs[i].name;
        } else {
          EXPECT_GT(size, 0) << specs[i].name;
        }
      }
    }
  });
}

// In one layer all that the keys' weights get comes through the keys, and what stands before the layer's products gets
// some of it.
TEST(Gradients, OfKeysCountInPart) {
  constexpr double kPart = 0.25;
  for_each_case(10, [](uint64_t seed) {
    Random random{seed, 25};
    ModelConfig config = smooth_config(random, Kind::recurrent);
    config.num_hidden_layers = 1;
    LanguageModel model = random_model(config, seed);
    for (const Mode mode : {Mode::attention, Mode::recurrent}) {
      if (!config.has(mode)) continue;
      Problem p = random_problem(random, config, 1, 40);
      p.schedules = {MixerSchedule::uniform(mode, static_cast<int64_t>(p.tokens[0].size()))};
      SCOPED_TRACE(describe(config, p.schedules));
      const auto all = gradients(model, p, 0, 1);
      model.set_key_gradient(kPart);
      const auto part = gradients(model, p, 0, 1);
      model.set_key_gradient(1);
      for (size_t i = 0; i < all.size(); ++i) {
        const std::string& name = model.weights()[i].first;
        if (name.ends_with("embed_tokens.weight") || name.ends_with("mixer_norm.weight")) continue;
        const bool of_keys = name.find(".k_proj") != std::string::npos || name.find(".k_conv") != std::string::npos;
        const bool counts = of_keys && mode == Mode::recurrent && config.mixers.size() == 2;
        EXPECT_TRUE(close(part[i], all[i] * (counts ? kPart : 1), kExact)) << name;
      }
    }
  });
}

TEST(Gradients, ComputingLayersAgainGivesTheSameBits) {
  for_each_case(20, [](uint64_t seed) {
    Random random{seed, 24};
    const ModelConfig config = random_config(random);
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      LanguageModel model = random_model(config, seed, type);
      const Problem p = random_problem(random, config, 3, 40);
      const auto kept = gradients(model, p, 0, 3);
      const RecomputeGuard again;
      const auto recomputed = gradients(model, p, 0, 3);
      for (size_t i = 0; i < kept.size(); ++i)
        EXPECT_TRUE(at::equal(kept[i], recomputed[i])) << model.weights()[i].first;
    }
  });
}

}  // namespace
}  // namespace oryx
