#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "model/language_model.h"

namespace oryx {

using Vector = std::vector<double>;

// What one layer wrote and held, token by token.
struct NaiveLayerTrace {
  std::vector<Vector> key_inputs, value_inputs;  // before the convolution, [n][Hkv * Kd], [n][Hkv * Vd]
  std::vector<Vector> keys, values;              // [n][Hkv * Kd], [n][Hkv * Vd]
  std::vector<Vector> log_decays, writes;        // [n][Hkv]; writes: beta or dt; empty without a recurrence
  std::vector<Vector> states;                    // after each token, [n][Hkv * Kd * Vd]
};

struct NaiveTrace {
  std::vector<NaiveLayerTrace> layers;
  std::vector<Vector> hidden, logits;               // [n][D], [n][V]
  double loss(size_t token, int64_t target) const;  // -log softmax(logits)[target]
};

// The model of DESIGN section 2 once more, as the formulas stand there: one sequence, one token after another, plain
// loops over doubles. Nothing is shared with the product but the weights, the config and the schedule.
class NaiveModel {
 public:
  explicit NaiveModel(const LanguageModel& model);
  NaiveTrace run(const std::vector<int64_t>& tokens, const MixerSchedule& schedule) const;

 private:
  const Vector& weight(const std::string& name) const { return weights_.at(name); }
  Vector linear(const std::string& name, const Vector& x) const;
  Vector rms_norm(const Vector& x, const Vector& w) const;
  void rms_norm_heads(Vector& x, int64_t dim) const;
  Vector convolve(const std::string& name, const std::vector<Vector>& inputs) const;
  void write(const std::string& mixer, const Vector& h, NaiveLayerTrace& trace) const;
  Vector attend(const std::string& mixer, const Vector& h, const NaiveLayerTrace& trace) const;
  Vector recur(const std::string& mixer, const Vector& h, const NaiveLayerTrace& trace) const;
  void step(int64_t layer, Mode mode, Vector& x, NaiveLayerTrace& trace) const;

  ModelConfig config_;
  std::map<std::string, Vector> weights_;
};

// Rows as a float64 tensor [n, columns].
at::Tensor to_tensor(const std::vector<Vector>& rows);
at::Tensor to_tensor(const Vector& row);

}  // namespace oryx
