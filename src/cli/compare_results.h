#pragma once

#include <filesystem>
#include <string>

#include "base/json.h"
#include "train/comparison.h"

namespace oryx::cli {

// Mean and standard error over seeds, {SEED: value}: a SPREAD, as below.
Json spread(const Json& by_seed);
// {SEED: a - b} of the seeds that both have.
Json seed_differences(const Json& a, const Json& b);

// Whether a recipe (Recipe::to_json) trains two mixers under one fixed schedule.
bool is_hybrid(const Json& recipe);

// Of one of a comparison's runs.
std::filesystem::path run_folder(const std::filesystem::path& out, const std::string& model, int64_t seed);

// In a run's folder: what train/position_losses.h gives for its final model.
inline constexpr const char* kPositionLosses = "position_losses.json";

// What the finished runs in `out` came to (a run is finished when it has a model/ and its position losses):
//   common      the resolved recipe as far as all models share it, without the seed
//   models      [{name, mixers, parameters (without embeddings), tie_ratio {MODE}, passes (over a token, in training),
//               recipe (the rest of it), tokens_per_s, val_loss {MODE: SPREAD}, against_baseline {MODE: SPREAD and the
//               baseline's name}, runs [{seed, folder, positions, and what read_metrics gives}]}]
//   finished    whether all runs are
// A SPREAD is {mean, standard_error (null for one seed), by_seed {SEED: value}}. A model's baseline in a mode is the
// first model that has this mode, by the same mixer, and no other; differences are taken seed by seed before their mean
// and standard error.
Json comparison_results(const Comparison& comparison, const std::filesystem::path& out);

}  // namespace oryx::cli
