#include "train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn_like.h>
#include <gtest/gtest.h>

#include <cmath>

namespace oryx {
namespace {

ModelConfig small() {
  ModelConfig c = preset("oryx-gdn-tiny");
  c.vocab_size = 32, c.num_hidden_layers = 1, c.hidden_size = 16, c.num_attention_heads = c.num_key_value_heads = 2;
  c.head_dim = c.value_head_dim = 8, c.intermediate_size = 32;
  return c;
}

// The update rule written out, one weight at a time, in double.
TEST(AdamW, FollowsTheFormula) {
  LanguageModel model = LanguageModel::random(small(), 1);
  model.require_gradients(true);
  const AdamWOptions o{0.9, 0.95, 1e-8, 0.1};
  AdamW optimizer(model, o);
  const auto specs = weight_specs(model.config());
  std::vector<at::Tensor> w, m, v;
  for (const auto& [name, x] : model.weights()) {
    w.push_back(x.detach().to(at::kDouble));
    m.push_back(w.back() * 0);
    v.push_back(w.back() * 0);
  }
  for (int step = 1; step <= 3; ++step) {
    const double lr = 0.01 * step;
    for (size_t i = 0; i < specs.size(); ++i) {
      const at::Tensor g = at::randn_like(model.weights()[i].second.detach());
      model.weights()[i].second.mutable_grad() = g;
      const at::Tensor gd = g.to(at::kDouble);
      if (specs[i].decay) w[i] = w[i] * (1 - lr * o.weight_decay);
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * gd;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * gd * gd;
      const at::Tensor mh = m[i] / (1 - std::pow(o.beta1, step)), vh = v[i] / (1 - std::pow(o.beta2, step));
      w[i] = w[i] - lr * mh / (vh.sqrt() + o.eps);
    }
    optimizer.step(lr);
  }
  for (size_t i = 0; i < specs.size(); ++i)
    EXPECT_LT((model.weights()[i].second.detach() - w[i]).abs().max().item<double>(), 1e-6) << specs[i].name;
}

TEST(AdamW, ClipsToTheCommonNorm) {
  LanguageModel model = LanguageModel::random(small(), 1);
  AdamW optimizer(model, {});
  double sum = 0;
  for (const auto& [name, x] : model.weights()) {
    x.mutable_grad() = at::randn_like(x);
    sum += x.grad().square().sum().item<double>();
  }
  EXPECT_NEAR(optimizer.clip_gradients(0.5), std::sqrt(sum), 1e-3 * std::sqrt(sum));
  double after = 0;
  for (const auto& [name, x] : model.weights()) after += x.grad().square().sum().item<double>();
  EXPECT_NEAR(std::sqrt(after), 0.5, 1e-4);
  EXPECT_NEAR(optimizer.clip_gradients(0), 0.5, 1e-4);  // 0: only measured
}

TEST(AdamW, DecaysMatricesAlone) {
  for (const WeightSpec& spec : weight_specs(preset("oryx-mamba2-tiny"))) {
    const bool matrix = spec.name.find("_proj.weight") != std::string::npos;
    EXPECT_EQ(spec.decay, matrix) << spec.name;
  }
}

}  // namespace
}  // namespace oryx
