#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/language_model.h"

namespace oryx {

class ShardedWeights;

struct OptimizerOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  bool muon = false;  // for the layers' matrices
  double momentum = 0.95;
};

// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over a model's float32 weights, or Muon (train/muon.h) for the
// matrices of its layers and AdamW for the rest (embedding, head, norms, ...). Weight decay applies to matrices
// only: not to norms, A_log, dt_bias, D, scales, convolutions or the embedding (WeightSpec::decay).
//
// With `shards` this rank updates its pieces of the weights, and all functions but zero_grad are collective.
class Optimizer {
 public:
  Optimizer(const LanguageModel& model, OptimizerOptions options, ShardedWeights* shards = nullptr);

  // One update with the gradients that the weights hold, scaled down to a common 2-norm of at most `max_norm` (0:
  // never); a weight without one is left alone. Returns that norm before scaling, float32 on the weights' device. Where
  // it or the loss (a scalar there, when given) is not finite, weights and state stay as they are. All of that is
  // decided on the device: one rank does not wait for a GPU. Gradients are used up.
  at::Tensor step(double lr, double max_norm = 0, const at::Tensor& loss = {});
  void zero_grad();

  // Copies on the CPU (of several ranks only the first gets them) of moments by weight name, and the count of updates,
  // for checkpoints: AdamW's .exp_avg, .exp_avg_sq and .step, Muon's .momentum.
  std::vector<std::pair<std::string, at::Tensor>> state() const;
  void load_state(const std::map<std::string, at::Tensor>& state);

 private:
  struct Parameter {
    std::string name;
    std::vector<int64_t> shape;
    at::Tensor weight;  // all of it, or this rank's piece
    bool decay, muon;
    at::Tensor first, second, updates;  // Muon: first alone
  };
  at::Tensor gradient(size_t i) const;  // like the parameter's weight; undefined when there is none
  std::vector<at::Tensor> gradients() const;
  // What the device decides of a step, all 0-dim float32.
  struct Decision {
    at::Tensor norm, taken;             // taken: 1 or 0
    std::optional<at::Tensor> divisor;  // of gradients
  };
  Decision decide(double max_norm, const at::Tensor& loss) const;
  void step_adamw(double lr, const Decision& decision);
  void step_muon(double lr, const Decision& decision);
  std::vector<at::Tensor> moments(at::Tensor Parameter::*moment) const;  // by weight; of this rank's pieces
  // Between this rank's pieces and whole tensors: copies on the CPU of the first rank.
  std::vector<at::Tensor> collect(at::Tensor Parameter::*moment) const;
  void distribute(const std::vector<at::Tensor>& whole, at::Tensor Parameter::*moment);
  bool is_first() const;  // of the ranks

  OptimizerOptions options_;
  std::vector<Parameter> parameters_;
  ShardedWeights* shards_;
};

// Whether Muon, where it is chosen, updates a weight.
bool suits_muon(const WeightSpec& spec);

}  // namespace oryx
