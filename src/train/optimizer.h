#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "model/language_model.h"

namespace oryx {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
};

// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over a model's float32 weights. Weight decay applies to matrices
// only: not to norms, A_log, dt_bias, D, scales, convolutions or the embedding (WeightSpec::decay).
class AdamW {
 public:
  AdamW(const LanguageModel& model, AdamWOptions options);

  // One update with the gradients that the weights hold; a weight without one is left alone.
  void step(double lr);
  void zero_grad();
  // The gradients' common 2-norm before scaling them down to at most `max_norm` (0: never).
  double clip_gradients(double max_norm);

  // First and second moments by weight name, and the count of updates, for checkpoints.
  std::vector<std::pair<std::string, at::Tensor>> state() const;
  void load_state(const std::map<std::string, at::Tensor>& state);

 private:
  struct Parameter {
    std::string name;
    at::Tensor weight, first, second, updates;
    bool decay;
  };
  AdamWOptions options_;
  std::vector<Parameter> parameters_;
};

}  // namespace oryx
