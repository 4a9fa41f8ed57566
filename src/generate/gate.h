#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

#include "generate/token_score.h"

namespace oryx {

// A small head that predicts what a token would gain from attention, in nats of the loss on what follows, from its
// final hidden state h after the recurrence read it: out . silu(W h + b) + c.
class Gate : public TokenScore {
 public:
  static constexpr const char* kFile = "gate.safetensors";

  Gate(int64_t model_width, int64_t width, uint64_t seed, at::Device device);
  static Gate load(const std::filesystem::path& directory, const LanguageModel& model);  // InputErrors name the file
  void save(const std::filesystem::path& directory) const;

  at::Tensor operator()(const LanguageModel&, const at::Tensor& hidden) const override { return gain(hidden); }
  at::Tensor gain(const at::Tensor& hidden) const;  // [N, D] -> [N], float32
  std::vector<at::Tensor> parameters() const { return {weight_, bias_, out_weight_, out_bias_}; }

 private:
  Gate(at::Tensor weight, at::Tensor bias, at::Tensor out_weight, at::Tensor out_bias);

  at::Tensor weight_, bias_, out_weight_, out_bias_;  // [M, D], [M], [1, M], [1]
};

}  // namespace oryx
