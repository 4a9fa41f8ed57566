#include "train/step_memory.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "model/recompute.h"
#include "train/memory_meter.h"
#include "train/optimizer.h"
#include "train/validation.h"
#include "training_case.h"

namespace oryx {
namespace {

TEST(MemoryMeter, CountsWhatIsAllocatedWhileItLives) {
  const at::Tensor before = at::empty({1000}, at::kFloat);
  MemoryMeter meter(at::kCPU);
  {
    const at::Tensor a = at::empty({1 << 20}, at::kFloat);
    const at::Tensor b = at::empty({1 << 18}, at::kFloat);
    EXPECT_EQ(meter.live(), (4 << 20) + (1 << 20));
  }
  EXPECT_EQ(meter.live(), 0);
  EXPECT_EQ(meter.peak(), (4 << 20) + (1 << 20));
  meter.reset_peak();
  EXPECT_EQ(meter.peak(), 0);
}

// Live bytes at the loss, measured on a whole model.
int64_t kept_by(const Recipe& r, bool recompute) {
  MemoryMeter meter(at::kCPU);
  LanguageModel model = LanguageModel::random(r.model, 0);
  model.require_gradients(true);
  const RecomputeGuard guard(recompute);
  Batch batch;
  batch.tokens.assign(r.train.micro_batch_tokens, 1), batch.targets = batch.tokens;
  batch.cu_seqlens = {0};
  std::vector<SequenceSpec> specs;
  const auto mixing = make_mixing(r.mixing, r.model, r.data.context);
  for (int64_t b = 0; b * r.data.context < r.train.micro_batch_tokens; ++b) {
    specs.push_back({mixing->schedule(0, 0, b, r.data.context, 0)});
    batch.cu_seqlens.push_back(static_cast<int32_t>((b + 1) * r.data.context));
  }
  const int64_t before = meter.live();
  const at::Tensor loss = loss_sum(model, batch, {std::move(specs), r.model.num_hidden_layers});
  return meter.live() - before;
}

class Memory : public Training {};

TEST_F(Memory, ActivationsOfAWholeModelAreForetold) {
  Json json = recipe_json(4096);
  json["train"]["batch_tokens"] = 1024;
  json["model"]["num_hidden_layers"] = 7;
  json["mixing"] = {{"strategy", "alternate"}, {"chunk", 4}};
  int64_t kept[2];
  for (const bool recompute : {false, true}) {
    json["train"]["recompute"] = recompute;
    const Recipe r = recipe(json);
    const StepMemory memory = predict_step_memory(r, at::kCPU);
    kept[recompute] = kept_by(r, recompute);
    EXPECT_NEAR(static_cast<double>(memory.activations) / static_cast<double>(kept[recompute]), 1, 0.05) << recompute;
    EXPECT_GT(memory.peak, memory.weights + memory.optimizer + memory.activations);
    EXPECT_EQ(memory.optimizer, 2 * memory.weights);
  }
  EXPECT_LT(kept[true] * 4, kept[false]);

  json["train"]["recompute"] = false;
  json["mixing"]["both"] = true;  // half of each sequence is in attention either way
  const auto twice = static_cast<double>(predict_step_memory(recipe(json), at::kCPU).activations);
  EXPECT_NEAR(twice / static_cast<double>(kept[false]), 2, 0.1);
}

TEST_F(Memory, MuonKeepsOneMomentOfMatrices) {
  Json json = recipe_json(4096);
  json["train"]["optimizer"] = "muon";
  const Recipe r = recipe(json);
  const StepMemory memory = predict_step_memory(r, at::kCPU);
  const LanguageModel model = LanguageModel::random(r.model, 0);
  OptimizerOptions options;
  options.muon = true;
  int64_t moments = 0;
  for (const auto& [name, x] : Optimizer(model, options).state()) moments += x.dim() > 0 ? x.nbytes() : 0;
  EXPECT_EQ(memory.optimizer, moments);
  EXPECT_LT(memory.optimizer, 2 * memory.weights);
}

}  // namespace
}  // namespace oryx
