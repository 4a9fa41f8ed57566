#include "train/step_memory.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "model/language_model.h"
#include "model/recompute.h"
#include "train/batch_share.h"
#include "train/memory_meter.h"
#include "train/muon.h"
#include "train/optimizer.h"
#include "train/resident_memory.h"

namespace oryx {
namespace {

constexpr int64_t kMostTokens = 4096, kPasses = 4;

// Of one step, the weights and gradients that were there before left out.
struct Measured {
  double kept = 0;      // when the loss is known
  double forward = 0;   // peak of the forward pass
  double head = 0;      // peak until the gradient of the final hidden states is known
  double backward = 0;  // peak from there on
  double all = 0;       // peak with weights and gradients, as measured

  Measured operator+(const Measured& o) const {
    return {kept + o.kept, forward + o.forward, head + o.head, backward + o.backward, std::max(all, o.all)};
  }
  Measured operator*(double x) const { return {kept * x, forward * x, head * x, backward * x, all}; }
};

Measured most(const Measured& a, const Measured& b) {
  return {std::max(a.kept, b.kept), std::max(a.forward, b.forward), std::max(a.head, b.head),
          std::max(a.backward, b.backward), std::max(a.all, b.all)};
}

// One forward and backward pass; `before` bytes are live when it begins.
Measured measure_pass(const LanguageModel& model, const SequenceLayout& layout, MemoryMeter& meter) {
  const auto before = static_cast<double>(meter.live());
  const auto peak = [&] {
    const auto bytes = static_cast<double>(meter.peak());
    meter.reset_peak();
    return bytes - before;
  };
  meter.reset_peak();
  Measured out;
  const at::Tensor tokens = at::full({layout.num_tokens()}, 1, at::kLong);  // on the CPU, as the trainer's
  at::Tensor hidden = model.hidden(tokens, layout);
  at::Tensor leaf = hidden.detach().requires_grad_(true);
  out.kept = static_cast<double>(meter.live()) - before;
  {
    const at::Tensor loss = model.loss_sum(leaf, tokens);
    out.forward = peak();
    loss.backward();
  }
  out.head = peak();
  const at::Tensor gradient = leaf.grad();
  leaf = at::Tensor();
  meter.reset_peak();
  hidden.backward(gradient);
  out.backward = peak();
  out.all = before + std::max({out.forward, out.head, out.backward});
  return out;
}

// The most of a few passes with the recipe's own schedules: their parts, and with them the sizes of tensors, vary.
Measured measure(const Recipe& recipe, int64_t layers, int64_t length, int64_t sequences, at::Device device) {
  const Recipe::Train& train = recipe.train;
  ModelConfig config = recipe.model;
  config.num_hidden_layers = layers;
  MemoryMeter meter(device.type());
  LanguageModel model = LanguageModel::random(config, 0, device);
  model.set_compute_type(train.precision == "bf16" ? at::kBFloat16 : at::kFloat);
  model.require_gradients(true);
  const auto mixing = make_mixing(recipe.mixing, recipe.model, recipe.data.context);
  const RecomputeGuard recompute(train.recompute);
  // With several parts the gradients of the first are there when the next begins.
  const bool both = passes(recipe.mixing, recipe.model) == 2;
  const bool parts = train.batch_tokens > train.micro_batch_tokens;
  Measured out;
  for (int64_t pass = 0; pass < kPasses; ++pass) {
    for (const auto& [name, w] : model.weights()) w.mutable_grad() = parts ? at::zeros_like(w.detach()) : at::Tensor();
    std::vector<SequenceSpec> specs;
    for (int64_t b = 0; b < sequences; ++b) {
      const MixerSchedule schedule = mixing->schedule(static_cast<uint64_t>(train.seed), pass, b, length, 0);
      specs.push_back({schedule});
      if (both) specs.push_back({schedule.exchanged()});
    }
    out = most(out, measure_pass(model, {std::move(specs), layers, device}, meter));
  }
  return out;
}

// `layers` at the recipe's number of tokens.
Measured measure_at(const Recipe& recipe, int64_t layers, at::Device device) {
  const int64_t tokens = recipe.train.micro_batch_tokens;
  const int64_t length = std::min(recipe.data.context, kMostTokens);
  if (tokens <= kMostTokens) return measure(recipe, layers, length, tokens / length, device);
  const int64_t many = std::max<int64_t>(2, kMostTokens / length), few = many / 2;
  const Measured a = measure(recipe, layers, length, few, device), b = measure(recipe, layers, length, many, device);
  // On the line through both.
  const double x = static_cast<double>(tokens - few * length) / static_cast<double>((many - few) * length);
  return a * (1 - x) + b * x;
}

}  // namespace

StepMemory predict_step_memory(Recipe recipe, at::Device device, int ranks) {
  auto& t = recipe.train;
  t.micro_batch_tokens =
      BatchShare(t.batch_tokens, t.micro_batch_tokens, recipe.data.context, 0, ranks).micro_batch_tokens();
  StepMemory out;
  int64_t layer_weights = 0, moments = 0, by_muon = 0, largest_by_muon = 0;
  for (const WeightSpec& spec : weight_specs(recipe.model)) {
    int64_t bytes = 4;
    for (int64_t n : spec.shape) bytes *= n;
    out.weights += bytes;
    if (spec.name.starts_with("model.layers.0.")) layer_weights += bytes;
    const bool muon = t.optimizer == "muon" && suits_muon(spec);
    moments += muon ? bytes : 2 * bytes;
    if (muon) by_muon += bytes, largest_by_muon = std::max(largest_by_muon, bytes);
  }
  out.gradients = out.weights;
  out.optimizer = moments / ranks;
  out.checkpoint_copy = out.weights + moments;

  const int64_t layers = recipe.model.num_hidden_layers;
  const bool parts = t.batch_tokens > t.micro_batch_tokens;
  const int64_t before = resident_memory();
  reset_peak_resident_memory();
  Measured all = measure_at(recipe, std::min<int64_t>(layers, 2), device);
  if (device.is_cpu()) {
    // The libraries' buffers and what allocation wastes grow with the tokens.
    const auto beside = static_cast<double>(peak_resident_memory() - before) - all.all;
    const double growth = static_cast<double>(t.micro_batch_tokens) / static_cast<double>(kMostTokens);
    out.program = before + static_cast<int64_t>(std::max(0.0, beside) * std::max(1.0, growth));
  }
  if (device.is_cpu() && ranks > 1) out.program += out.gradients;  // copies that Gloo reduces
  if (layers > 2) {
    const double kept = all.kept - measure_at(recipe, 1, device).kept;  // by a layer
    // The peak of the backward pass lies at its beginning or at its end, where all gradients are.
    const double gradients = parts ? 0 : static_cast<double>(layer_weights);
    const Measured layer{kept, kept, kept, std::max(kept, gradients), 0};
    all = all + layer * static_cast<double>(layers - 2);
  }
  out.activations = static_cast<int64_t>(all.kept);
  const int64_t persistent = out.weights + out.optimizer + (parts ? out.gradients : 0);
  const int64_t training = persistent + static_cast<int64_t>(std::max({all.forward, all.head, all.backward}));
  // Muon's temporaries are half a dozen times what is updated at once; between ranks, what is sent and received on both
  // ways besides (ShardedWeights::on_whole).
  const int64_t at_once =
      device.is_cuda() ? std::max(largest_by_muon, std::min(by_muon, 4 * kMuonNumbers)) : largest_by_muon;
  const int64_t travelling = ranks > 1 ? 4 * by_muon / ranks : 0;
  const int64_t update = out.weights + out.optimizer + out.gradients + 6 * at_once + travelling;
  out.peak = std::max(training, update) + out.program;
  return out;
}

}  // namespace oryx
