#include "train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/muon.h"
#include "train/sharded_weights.h"

namespace oryx {

static at::Tensor copy_to_cpu(const at::Tensor& x) {
  return x.to(at::kCPU, x.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
}

bool suits_muon(const WeightSpec& spec) {
  // Decay goes with being a matrix; an untied head is one too, but its rows are looked up like the embedding's.
  return spec.decay && spec.use != WeightSpec::Use::embedding;
}

Optimizer::Optimizer(const LanguageModel& model, OptimizerOptions options, ShardedWeights* shards)
    : options_(options), shards_(shards) {
  const auto specs = weight_specs(model.config());
  for (size_t i = 0; i < specs.size(); ++i) {
    const at::Tensor weight = shards != nullptr ? shards->piece(i) : model.weights()[i].second;
    const auto zeros = [&] { return at::zeros_like(weight).detach(); };
    const bool muon = options.muon && suits_muon(specs[i]);
    parameters_.push_back({specs[i].name, specs[i].shape, weight, specs[i].decay, muon, zeros(),
                           muon ? at::Tensor() : zeros(),
                           muon ? at::Tensor() : at::zeros({}, weight.options().requires_grad(false))});
  }
}

bool Optimizer::is_first() const {
  return shards_ == nullptr || shards_->group().first();
}

at::Tensor Optimizer::gradient(size_t i) const {
  if (shards_ == nullptr) return parameters_[i].weight.grad();
  return shards_->has_gradient(i) ? shards_->gradient_piece(i) : at::Tensor();
}

Optimizer::Decision Optimizer::decide(double max_norm, const at::Tensor& loss) const {
  const std::vector<at::Tensor> grads = gradients();
  const auto options = parameters_.front().weight.options().requires_grad(false);
  Decision d;
  d.norm = grads.empty() ? at::zeros({}, options) : at::stack(at::_foreach_norm(grads, 2)).norm();
  if (shards_ != nullptr) {
    const double norm = d.norm.item<double>();
    std::vector<double> square{norm * norm};
    shards_->group().sum(square);
    d.norm = at::full({}, std::sqrt(square[0]), options);
  }
  // A sum is finite only where both numbers are.
  d.taken = (loss.defined() ? d.norm + loss.to(d.norm.scalar_type()) : d.norm).isfinite().to(d.norm.scalar_type());
  if (max_norm > 0) d.divisor = ((d.norm + 1e-6) / max_norm).clamp_min(1);
  return d;
}

at::Tensor Optimizer::step(double lr, double max_norm, const at::Tensor& loss) {
  c10::NoGradGuard no_grad;
  const Decision decision = decide(max_norm, loss);
  step_adamw(lr, decision);
  if (options_.muon) step_muon(lr, decision);
  if (shards_ != nullptr) shards_->gather();
  return decision.norm;
}

void Optimizer::step_adamw(double lr, const Decision& decision) {
  const at::Tensor not_taken = 1 - decision.taken;
  for (bool decay : {true, false}) {
    std::vector<at::Tensor> weights, grads, first, second, updates, all_updates;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      Parameter& p = parameters_[i];
      const at::Tensor grad = gradient(i);
      if (p.muon || p.decay != decay || !grad.defined()) continue;
      all_updates.push_back(p.updates);
      if (grad.numel() == 0) continue;
      weights.push_back(p.weight);
      grads.push_back(grad);
      first.push_back(p.first);
      second.push_back(p.second);
      updates.push_back(p.updates);
    }
    if (!all_updates.empty()) at::_foreach_add_(all_updates, decision.taken);
    if (!weights.empty())
      at::_fused_adamw_(weights, grads, first, second, {}, updates, lr, options_.beta1, options_.beta2,
                        decay ? options_.weight_decay : 0.0, options_.eps, /*amsgrad=*/false, /*maximize=*/false,
                        decision.divisor, not_taken);
  }
}

void Optimizer::step_muon(double lr, const Decision& decision) {
  std::vector<size_t> present;
  std::vector<std::pair<int64_t, int64_t>> shapes;
  std::vector<at::Tensor> grads;
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (const at::Tensor grad = gradient(i); parameters_[i].muon && grad.defined()) {
      present.push_back(i);
      shapes.emplace_back(parameters_[i].shape[0], parameters_[i].shape[1]);
      grads.push_back(grad);
    }
  if (present.empty() && shards_ == nullptr) return;
  if (decision.divisor && !grads.empty()) at::_foreach_div_(grads, *decision.divisor);
  const at::Tensor taken = decision.taken.to(at::kBool);
  const auto momentum = [&](size_t k) {
    return muon_momentum(grads[k], parameters_[present[k]].first, options_.momentum, taken);
  };
  const auto apply = [&](Parameter& p, const at::Tensor& orthogonal) {
    muon_apply(p.weight, orthogonal, std::max(p.shape[0], p.shape[1]), lr, options_.weight_decay, decision.taken);
  };
  if (shards_ != nullptr) {
    std::vector<at::Tensor> steps(parameters_.size());
    for (size_t k = 0; k < present.size(); ++k) steps[present[k]] = momentum(k);
    const auto updates = shards_->on_whole(steps, orthogonalize_all);
    for (const size_t i : present)
      if (updates[i].defined()) apply(parameters_[i], updates[i]);
    return;
  }
  // Group by group, so that no more than one group's steps exist at a time.
  for (const auto& group : muon_groups(shapes, parameters_[present[0]].weight.is_cuda())) {
    std::vector<at::Tensor> steps;
    steps.reserve(group.size());
    for (const size_t k : group) steps.push_back(momentum(k));
    const auto updates = orthogonalize_group(steps);
    for (size_t n = 0; n < group.size(); ++n) apply(parameters_[present[group[n]]], updates[n]);
  }
}

void Optimizer::zero_grad() {
  if (shards_ != nullptr) return;  // ShardedWeights::begin_step
  for (Parameter& p : parameters_) p.weight.mutable_grad() = at::Tensor();
}

std::vector<at::Tensor> Optimizer::gradients() const {
  if (shards_ != nullptr) return shards_->gradient_slices();
  std::vector<at::Tensor> grads;
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (const at::Tensor grad = gradient(i); grad.defined()) grads.push_back(grad);
  return grads;
}

std::vector<at::Tensor> Optimizer::moments(at::Tensor Parameter::*moment) const {
  std::vector<at::Tensor> out;
  for (const Parameter& p : parameters_) out.push_back(p.*moment);
  return out;
}

std::vector<at::Tensor> Optimizer::collect(at::Tensor Parameter::*moment) const {
  std::vector<at::Tensor> all = moments(moment);
  if (shards_ != nullptr) return shards_->collect(all);
  for (at::Tensor& x : all)
    if (x.defined()) x = copy_to_cpu(x);
  return all;
}

void Optimizer::distribute(const std::vector<at::Tensor>& whole, at::Tensor Parameter::*moment) {
  const std::vector<at::Tensor> to = moments(moment);
  if (shards_ != nullptr) return shards_->distribute(whole, to);
  for (size_t i = 0; i < to.size(); ++i)
    if (to[i].defined()) to[i].copy_(whole[i]);
}

std::vector<std::pair<std::string, at::Tensor>> Optimizer::state() const {
  const std::vector<at::Tensor> first = collect(&Parameter::first), second = collect(&Parameter::second);
  std::vector<std::pair<std::string, at::Tensor>> out;
  if (!is_first()) return out;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& p = parameters_[i];
    if (p.muon) {
      out.emplace_back(p.name + ".momentum", first[i]);
      continue;
    }
    out.emplace_back(p.name + ".exp_avg", first[i]);
    out.emplace_back(p.name + ".exp_avg_sq", second[i]);
    out.emplace_back(p.name + ".step", copy_to_cpu(p.updates));
  }
  return out;
}

void Optimizer::load_state(const std::map<std::string, at::Tensor>& state) {
  c10::NoGradGuard no_grad;
  const auto find = [&](const std::string& name, at::IntArrayRef shape) {
    const auto found = state.find(name);
    require(found != state.end() && found->second.sizes() == shape,
            "the optimizer's state lacks '{}' in this model's shape", name);
    return found->second;
  };
  std::vector<at::Tensor> first(parameters_.size()), second(parameters_.size());
  for (size_t i = 0; is_first() && i < parameters_.size(); ++i) {
    const Parameter& p = parameters_[i];
    first[i] = find(p.name + (p.muon ? ".momentum" : ".exp_avg"), p.shape);
    if (p.muon) continue;
    second[i] = find(p.name + ".exp_avg_sq", p.shape);
    p.updates.copy_(find(p.name + ".step", {}));
  }
  distribute(first, &Parameter::first);
  distribute(second, &Parameter::second);
  for (const Parameter& p : parameters_)
    if (shards_ != nullptr && !p.muon) shards_->group().broadcast(p.updates);
}

}  // namespace oryx
