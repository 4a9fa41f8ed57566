#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>

#include "model/language_model.h"
#include "train/launch.h"
#include "train/recipe.h"

namespace oryx {

struct TrainOptions {
  std::filesystem::path out;  // the run: checkpoints, metrics.jsonl, tensorboard, recipe.json; model/ at the end
  bool resume = false;        // from the newest checkpoint, or from nothing; a finished run is left as it is
  at::Device device = at::kCPU;
  Launch launch = {};  // several ranks train the same model as one; the first alone writes to `out`
  // Called once, before the first step, with the recipe as it is in force (Recipe::to_json).
  std::function<void(const Json& recipe)> started = nullptr;
  // Called in each step with the gradients in place (of several ranks: this one's), which it may look at or change.
  std::function<void(int64_t step, const LanguageModel& model)> before_update = nullptr;
};

struct TrainResult {
  int64_t steps = 0, tokens = 0;
  int64_t skipped = 0;          // steps without a finite loss and gradient
  double loss = 0;              // of the last step; NaN when nothing was left to do
  double seconds = 0;           // of this call
  int64_t step_peak_bytes = 0;  // resident memory at most during the first steps, on the CPU; 0: not known
  int stopped_by = 0;           // 0: finished; else the signal after which a checkpoint was saved
};

// Trains the recipe's model and writes OUT/model. InputErrors: the data, an `out` that already holds a run (without
// resume), a recipe that is not the one the run began with.
TrainResult train(const Recipe& recipe, const TrainOptions& options);

}  // namespace oryx
