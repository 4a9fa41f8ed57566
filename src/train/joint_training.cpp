#include "train/joint_training.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <torch/optim/adamw.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/progress.h"
#include "base/random.h"
#include "generate/routing.h"
#include "train/optimizer.h"
#include "train/validation.h"

namespace oryx {
namespace {

constexpr double kLeastFraction = 0.02, kMostFraction = 0.2;
constexpr uint64_t kPlacementPurpose = 0x6761746564;
constexpr double kWarmup = 0.05;

SequenceLayout mixed(const LanguageModel& model, const Batch& batch, const at::Tensor& guess,
                     const MixingStrategy& mixing, const JointTrainingOptions& options, int64_t step, double progress) {
  const at::Tensor scores = guess.to(at::kCPU, at::kDouble).contiguous();
  const double* score = scores.const_data_ptr<double>();
  return batch_layout(model, batch, [&](int64_t b, int64_t length) {
    Random random{options.gate.seed, kPlacementPurpose, static_cast<uint64_t>(step), static_cast<uint64_t>(b)};
    if (random.uniform() >= options.placed) return mixing.schedule(options.gate.seed, step, b, length, progress);
    const double fraction = kLeastFraction * std::pow(kMostFraction / kLeastFraction, random.uniform());
    return MixerSchedule::from_spans(
        route_known({score + batch.cu_seqlens[b], static_cast<size_t>(length)}, {fraction, 1}), length);
  });
}

}  // namespace

Json JointTrainingReport::to_json() const {
  Json out = gate.to_json();
  out["val_loss"] = {{"before", before}, {"after", after}};
  return out;
}

JointLosses joint_losses(const LanguageModel& model, const Gate& gate, const Batch& batch, const MixingStrategy& mixing,
                         const JointTrainingOptions& options, int64_t step, double progress) {
  const at::Tensor tokens = at::tensor(batch.tokens), targets = at::tensor(batch.targets);
  const double count = static_cast<double>(std::max<int64_t>(1, batch.target_count()));
  const at::Tensor hidden = model.hidden(tokens, batch_layout(model, batch, Mode::recurrent));
  const at::Tensor recurrent = model.losses(hidden, targets);
  JointLosses out;
  {
    c10::NoGradGuard no_grad;
    const at::Tensor attention =
        model.losses(model.hidden(tokens, batch_layout(model, batch, Mode::attention)), targets);
    out.gain = (recurrent.detach() - attention).to(at::kFloat);
  }
  const at::Tensor guess = gate.gain(read_tokens(batch, hidden));
  out.guess = guess.detach();
  out.gate = (guess - out.gain).square().mean() / out.gain.var().clamp_min(1e-6);
  const SequenceLayout layout = mixed(model, batch, out.guess, mixing, options, step, progress);
  out.model = recurrent.sum() / (2 * count) + loss_sum(model, batch, layout, 1 / (2 * count));
  return out;
}

std::pair<Gate, JointTrainingReport> train_jointly(LanguageModel& model, const TrainingData& data, const Recipe& recipe,
                                                   const JointTrainingOptions& options) {
  require_two_mixers(model.config());
  ProcessGroup alone;
  JointTrainingReport report;
  report.before = validation_losses(model, data, recipe, alone);
  const auto mixing = make_mixing(recipe.mixing, model.config(), recipe.data.context);
  Gate gate(model.config().hidden_size, options.gate.width, options.gate.seed, model.device());
  for (const at::Tensor& parameter : gate.parameters()) parameter.requires_grad_(true);
  model.require_gradients(true);
  const auto& t = recipe.train;
  Optimizer optimizer(model, {t.beta1, t.beta2, t.eps, t.weight_decay, false, t.momentum});
  torch::optim::AdamW gate_optimizer(gate.parameters(), torch::optim::AdamWOptions(options.gate.lr));
  const int64_t batch_tokens = data.train().batch_tokens();
  const int64_t steps = (options.gate.tokens + batch_tokens - 1) / batch_tokens;
  GateRecord record;
  Progress progress("joint", steps * batch_tokens);
  for (int64_t step = 0; step < steps; ++step) {
    const double done = static_cast<double>(step) / static_cast<double>(steps);
    const JointLosses losses = joint_losses(model, gate, data.train().batch(step), *mixing, options, step, done);
    if (4 * (step + 1) > 3 * steps) record.add(losses.guess, losses.gain);
    gate_optimizer.zero_grad();
    (losses.model + options.weight * losses.gate).backward();
    const double lr =
        options.model_lr * std::min(1.0, (done + 1.0 / static_cast<double>(steps)) / kWarmup) * (1 - done);
    const double norm = optimizer.step(lr, t.clip).item<double>();
    require(std::isfinite(norm), "stopped at step {}: a gradient is not finite; lower --model-lr", step);
    optimizer.zero_grad();
    for (auto& group : gate_optimizer.param_groups()) group.options().set_lr(options.gate.lr * (1 - done));
    gate_optimizer.step();
    progress.update((step + 1) * batch_tokens, fmt::format("loss {:.4f}, unexplained {:.3f}",
                                                           losses.model.item<double>(), losses.gate.item<double>()));
  }
  progress.finish();
  model.require_gradients(false);
  for (const at::Tensor& parameter : gate.parameters()) parameter.requires_grad_(false);
  report.gate = record.report(steps * batch_tokens);
  report.after = validation_losses(model, data, recipe, alone);
  return {std::move(gate), std::move(report)};
}

}  // namespace oryx
