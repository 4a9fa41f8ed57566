#include "train/gate_training.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <torch/optim/adamw.h>

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"
#include "generate/repeats.h"
#include "train/validation.h"

namespace oryx {
namespace {

struct Reading {
  ReadTokens tokens;
  at::Tensor gain;  // [N]
};

Reading read(const LanguageModel& model, const Batch& batch) {
  c10::NoGradGuard no_grad;
  const at::Tensor tokens = at::tensor(batch.tokens), targets = at::tensor(batch.targets);
  const auto hidden = [&](Mode mode) { return model.hidden(tokens, batch_layout(model, batch, mode)); };
  const at::Tensor recurrent = hidden(Mode::recurrent);
  return {read_tokens(batch, recurrent),
          model.losses(recurrent, targets) - model.losses(hidden(Mode::attention), targets)};
}

// What part of the whole gain lies in the first tokens of this order, for some fractions.
std::map<std::string, double> parts(const at::Tensor& gain, const at::Tensor& order) {
  std::map<std::string, double> out;
  const at::Tensor sums = gain.index_select(0, order).cumsum(0);
  const double whole = gain.sum().item<double>();
  for (double fraction : {0.01, 0.05, 0.1, 0.25, 0.5}) {
    const auto n = static_cast<int64_t>(fraction * static_cast<double>(gain.numel()));
    if (n > 0) out[fmt::format("{}", fraction)] = sums[n - 1].item<double>() / whole;
  }
  return out;
}

}  // namespace

Json GateTrainingReport::to_json() const {
  return {{"tokens", tokens}, {"mean_gain", mean_gain}, {"caught", caught}, {"best", best}};
}

void GateRecord::add(const at::Tensor& expected, const at::Tensor& gain) {
  expected_.push_back(expected.detach().to(at::kCPU, at::kDouble));
  gains_.push_back(gain.detach().to(at::kCPU, at::kDouble));
}

GateTrainingReport GateRecord::report(int64_t tokens) const {
  GateTrainingReport report;
  report.tokens = tokens;
  const at::Tensor gain = at::cat(gains_), guess = at::cat(expected_);
  report.mean_gain = gain.mean().item<double>();
  report.caught = parts(gain, guess.argsort(0, /*descending=*/true));
  report.best = parts(gain, gain.argsort(0, /*descending=*/true));
  return report;
}

ReadTokens read_tokens(const Batch& batch, const at::Tensor& hidden) {
  std::vector<float> repeats;
  for (int64_t b = 0; b < batch.sequences(); ++b) {
    const int64_t begin = batch.cu_seqlens[b], end = batch.cu_seqlens[b + 1];
    Repeats().read(std::span(batch.tokens).subspan(begin, end - begin), repeats);
  }
  return {hidden, repeats};
}

void require_two_mixers(const ModelConfig& config) {
  require(config.has(Mode::attention) && config.has(Mode::recurrent),
          "a gate chooses between attention and a recurrence, but the model has only {}", mixer_name(config.mixers[0]));
}

std::pair<Gate, GateTrainingReport> train_gate(const LanguageModel& model, const BatchSource& data,
                                               const GateTrainingOptions& options) {
  require_two_mixers(model.config());
  Gate gate(model.config().hidden_size, options.width, options.seed, model.device());
  for (const at::Tensor& parameter : gate.parameters()) parameter.requires_grad_(true);
  torch::optim::AdamW optimizer(gate.parameters(), torch::optim::AdamWOptions(options.lr));
  const int64_t steps = (options.tokens + data.batch_tokens() - 1) / data.batch_tokens();
  GateRecord record;
  Progress progress("gate", steps * data.batch_tokens());
  for (int64_t step = 0; step < steps; ++step) {
    const Reading reading = read(model, data.batch(step));
    const at::Tensor guess = gate.gain(reading.tokens);
    if (4 * (step + 1) > 3 * steps) record.add(guess, reading.gain);
    const at::Tensor loss = at::mse_loss(guess, reading.gain.to(at::kFloat));
    optimizer.zero_grad();
    loss.backward();
    for (auto& group : optimizer.param_groups())
      group.options().set_lr(options.lr * static_cast<double>(steps - step) / static_cast<double>(steps));
    optimizer.step();
    progress.update((step + 1) * data.batch_tokens(), fmt::format("squared error {:.4f}", loss.item<double>()));
  }
  progress.finish();
  for (const at::Tensor& parameter : gate.parameters()) parameter.requires_grad_(false);
  return {std::move(gate), record.report(steps * data.batch_tokens())};
}

}  // namespace oryx
