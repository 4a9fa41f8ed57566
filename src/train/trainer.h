#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

#include "train/recipe.h"

namespace oryx {

struct TrainOptions {
  std::filesystem::path out;  // the run: checkpoints, metrics.jsonl, recipe.json, and model/ at the end
  bool resume = false;        // from the newest checkpoint, or from nothing; a finished run is left as it is
  at::Device device = at::kCPU;
};

struct TrainResult {
  int64_t steps = 0, tokens = 0;
  double loss = 0;     // of the last step; NaN when nothing was left to do
  double seconds = 0;  // of this call
  int stopped_by = 0;  // 0: finished; else the signal after which a checkpoint was saved
};

// Trains the recipe's model and writes OUT/model. InputErrors: the data, an `out` that already holds a run (without
// resume), a recipe that is not the one the run began with.
TrainResult train(const Recipe& recipe, const TrainOptions& options);

}  // namespace oryx
