#pragma once

#include <ATen/core/Tensor.h>

#include <map>
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

  // One update with the gradients that the weights hold; a weight without one is left alone.
  void step(double lr);
  void zero_grad();
  // The gradients' common 2-norm before scaling them down to at most `max_norm` (0: never). Not finite when some
  // gradient is not; they are then left as they are.
  double clip_gradients(double max_norm);
  // Queues the computation of that norm, for a GPU to do it before the program waits.
  void queue_norm();

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
  void step_muon(double lr);
  std::vector<at::Tensor> moments(at::Tensor Parameter::*moment) const;  // by weight; of this rank's pieces
  // Between this rank's pieces and whole tensors: copies on the CPU of the first rank.
  std::vector<at::Tensor> collect(at::Tensor Parameter::*moment) const;
  void distribute(const std::vector<at::Tensor>& whole, at::Tensor Parameter::*moment);
  bool is_first() const;  // of the ranks

  OptimizerOptions options_;
  std::vector<Parameter> parameters_;
  ShardedWeights* shards_;
  at::Tensor norm_;  // queued
};

// Whether Muon, where it is chosen, updates a weight.
bool suits_muon(const WeightSpec& spec);

}  // namespace oryx
