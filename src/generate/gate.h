#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

#include "generate/token_score.h"

namespace oryx {

// A small head that predicts what a token would gain from attention, in nats of the loss on what follows:
// out . silu(W x + b) + c of x [D + Repeats::kFeatures], the token's final hidden state after the recurrence read it
// and how it repeats the text.
class Gate : public TokenScore {
 public:
  static constexpr const char* kFile = "gate.safetensors";

  Gate(int64_t model_width, int64_t width, uint64_t seed, at::Device device);
  static Gate load(const std::filesystem::path& directory, const LanguageModel& model);  // InputErrors name the file
  void save(const std::filesystem::path& directory) const;

  bool sees_repeats() const override { return true; }
  at::Tensor operator()(const LanguageModel&, const ReadTokens& tokens) const override { return gain(tokens); }
  at::Tensor gain(const ReadTokens& tokens) const;  // [N], float32
  std::vector<at::Tensor> parameters() const { return {weight_, bias_, out_weight_, out_bias_}; }

 private:
  Gate(at::Tensor weight, at::Tensor bias, at::Tensor out_weight, at::Tensor out_bias);

  at::Tensor weight_, bias_, out_weight_, out_bias_;  // [M, D + F], [M], [1, M], [1]
};

}  // namespace oryx
