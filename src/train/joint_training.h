#pragma once

#include <cstdint>
#include <utility>

#include "train/gate_training.h"
#include "train/recipe.h"
#include "train/training_data.h"

namespace oryx {

struct JointTrainingOptions {
  GateTrainingOptions gate;
  double model_lr = 1e-3;  // rises over the first twentieth, falls to 0 linearly
  double weight = 1;       // of the gate's loss
  double placed = 0.5;     // part of the sequences that the gate schedules itself
};

struct JointTrainingReport {
  GateTrainingReport gate;
  // Nats per token in every mode (train/validation.h); empty without validation data.
  Json before, after;
  Json to_json() const;
};

// Trains a model's weights on, together with a gate for it. The loss of a step is the mean of two in nats per target,
//   that of the recurrence alone, and that under the recipe's mixing or, for a part of the sequences, under the gate's
//   own choice of single tokens, for a fraction of 2 to 20% drawn per sequence,
// and the part of the gain's variance that the gate leaves unexplained, mean((guess - gain)^2) / variance(gain), whose
// gradient flows into the recurrence's hidden states but not into the gain (gate_training.h says what that is). With
// AdamW for the weights and for the gate. InputError for a model with one mixer.
std::pair<Gate, JointTrainingReport> train_jointly(LanguageModel& model, const TrainingData& data, const Recipe& recipe,
                                                   const JointTrainingOptions& options);

// The losses of one step, which can be differentiated: scalars.
struct JointLosses {
  at::Tensor model, gate;
  at::Tensor guess, gain;  // [N], detached
};
JointLosses joint_losses(const LanguageModel& model, const Gate& gate, const Batch& batch, const MixingStrategy& mixing,
                         const JointTrainingOptions& options, int64_t step, double progress);

}  // namespace oryx
