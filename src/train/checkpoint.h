#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>

#include "base/json.h"
#include "model/language_model.h"
#include "train/optimizer.h"

namespace oryx {

// A checkpoint is a directory DIR/checkpoints/step-000001000 that appears whole or not at all: the model (a model
// directory, float32), optimizer.safetensors, trainer.json, and checksums.json over all of them. Everything random in
// training is a function of (seed, step), so no generator's state is kept.
struct TrainerState {
  int64_t step = 0, tokens = 0;
  Json recipe;                      // resolved
  Json guard;                       // StepGuard::state
  std::optional<double> best_loss;  // lowest mean validation loss so far, and its step
  int64_t best_step = 0;

  Json to_json() const;
  static TrainerState from_json(const Json& json, const std::string& source);
};

// Writes checkpoints while training goes on. Of those in DIR the newest `keep` stay, and the one of the best validation
// loss, to which checkpoints/best is a link.
class CheckpointWriter {
 public:
  CheckpointWriter(std::filesystem::path run, int64_t keep);
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;
  ~CheckpointWriter();  // waits

  // Returns when the model and the optimizer's state are copied (with several ranks, Optimizer::state is collective);
  // first waits for an earlier checkpoint that is still being written. `extras` puts further files into the directory.
  // Throws what went wrong with the earlier one.
  void save(const LanguageModel& model, const Optimizer& optimizer, TrainerState state,
            std::function<void(const std::filesystem::path&)> extras);
  void check();  // throws what went wrong, if a write has ended badly
  void wait();   // for the last one; throws what went wrong

 private:
  std::filesystem::path run_;
  int64_t keep_;
  std::future<void> writing_;
};

// The newest checkpoint of a run, if any, whole or not.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& run);

// Removes what a killed process had begun to write. Nobody else may be writing (RunLock).
void remove_unfinished(const std::filesystem::path& run);

// Loads weights and moments of the newest whole checkpoint in place; absent when the run has none. Damaged newer ones
// are named on standard error and put aside as damaged-step-*. InputError when all are damaged, or when the recipe is
// not the one that the run began with.
std::optional<TrainerState> load_newest_checkpoint(const std::filesystem::path& run, const Json& recipe,
                                                   LanguageModel& model, Optimizer& optimizer);

}  // namespace oryx
