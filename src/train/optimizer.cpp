#include "train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "base/error.h"
#include "train/muon.h"

namespace oryx {

Optimizer::Optimizer(const LanguageModel& model, OptimizerOptions options) : options_(options) {
  const auto specs = weight_specs(model.config());
  for (size_t i = 0; i < specs.size(); ++i) {
    const at::Tensor& weight = model.weights()[i].second;
    const auto zeros = [&] { return at::zeros_like(weight).detach(); };
    // Decay goes with being a matrix; an untied head is one too, but its rows are looked up like the embedding's.
    const bool muon = options.muon && specs[i].decay && specs[i].use != WeightSpec::Use::embedding;
    parameters_.push_back({specs[i].name, weight, specs[i].decay, muon, zeros(), muon ? at::Tensor() : zeros(),
                           muon ? at::Tensor() : at::zeros({}, weight.options().requires_grad(false))});
  }
}

void Optimizer::step(double lr) {
  c10::NoGradGuard no_grad;
  for (bool decay : {true, false}) {
    std::vector<at::Tensor> weights, grads, first, second, updates;
    for (Parameter& p : parameters_) {
      if (p.muon || p.decay != decay || !p.weight.grad().defined()) continue;
      weights.push_back(p.weight);
      grads.push_back(p.weight.grad());
      first.push_back(p.first);
      second.push_back(p.second);
      updates.push_back(p.updates.add_(1));
    }
    if (!weights.empty())
      at::_fused_adamw_(weights, grads, first, second, {}, updates, lr, options_.beta1, options_.beta2,
                        decay ? options_.weight_decay : 0.0, options_.eps, /*amsgrad=*/false, /*maximize=*/false);
  }
  for (Parameter& p : parameters_)
    if (p.muon && p.weight.grad().defined())
      muon_update(p.weight, p.weight.grad(), p.first, lr, options_.weight_decay, options_.momentum);
}

void Optimizer::zero_grad() {
  for (Parameter& p : parameters_) p.weight.mutable_grad() = at::Tensor();
}

double Optimizer::clip_gradients(double max_norm) {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> grads;
  for (const Parameter& p : parameters_)
    if (p.weight.grad().defined()) grads.push_back(p.weight.grad());
  if (grads.empty()) return 0;
  const double norm = at::stack(at::_foreach_norm(grads, 2)).norm().item<double>();
  if (max_norm > 0 && norm > max_norm && std::isfinite(norm)) at::_foreach_mul_(grads, max_norm / (norm + 1e-6));
  return norm;
}

std::vector<std::pair<std::string, at::Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, at::Tensor>> out;
  for (const Parameter& p : parameters_) {
    if (p.muon) {
      out.emplace_back(p.name + ".momentum", p.first);
      continue;
    }
    out.emplace_back(p.name + ".exp_avg", p.first);
    out.emplace_back(p.name + ".exp_avg_sq", p.second);
    out.emplace_back(p.name + ".step", p.updates);
  }
  return out;
}

void Optimizer::load_state(const std::map<std::string, at::Tensor>& state) {
  c10::NoGradGuard no_grad;
  for (const auto& [name, tensor] : this->state()) {
    const auto found = state.find(name);
    require(found != state.end() && found->second.sizes() == tensor.sizes(),
            "the optimizer's state lacks '{}' in this model's shape", name);
    tensor.copy_(found->second);
  }
}

}  // namespace oryx
