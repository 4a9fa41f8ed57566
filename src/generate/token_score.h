#pragma once

#include <ATen/core/Tensor.h>

#include "model/language_model.h"

namespace oryx {

// How much a token is thought to gain from attention, from its final hidden state after the recurrence read it.
class TokenScore {
 public:
  virtual ~TokenScore() = default;
  virtual at::Tensor operator()(const LanguageModel& model, const at::Tensor& hidden) const = 0;  // [N, D] -> [N]
};

// Of the prediction, in nats.
class EntropyScore : public TokenScore {
 public:
  at::Tensor operator()(const LanguageModel& model, const at::Tensor& hidden) const override;
};

// 1 - (the first choice's probability - the second's).
class MarginScore : public TokenScore {
 public:
  at::Tensor operator()(const LanguageModel& model, const at::Tensor& hidden) const override;
};

}  // namespace oryx
