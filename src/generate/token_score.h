#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/language_model.h"

namespace oryx {

// The tokens of one or more sequences after the recurrence read them.
struct ReadTokens {
  at::Tensor hidden;   // [N, D], final states
  at::Tensor repeats;  // [N, Repeats::kFeatures], float32; undefined where the score does not see them

  // `repeats` as Repeats::read() appends them; empty: undefined.
  ReadTokens(at::Tensor hidden, const std::vector<float>& repeats);
};

// How much each token is thought to gain from attention.
class TokenScore {
 public:
  virtual ~TokenScore() = default;
  virtual bool sees_repeats() const { return false; }
  virtual at::Tensor operator()(const LanguageModel& model, const ReadTokens& tokens) const = 0;  // [N]
};

// Of the prediction, in nats.
class EntropyScore : public TokenScore {
 public:
  at::Tensor operator()(const LanguageModel& model, const ReadTokens& tokens) const override;
};

// 1 - (the first choice's probability - the second's).
class MarginScore : public TokenScore {
 public:
  at::Tensor operator()(const LanguageModel& model, const ReadTokens& tokens) const override;
};

}  // namespace oryx
