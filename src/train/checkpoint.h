#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "base/json.h"
#include "model/language_model.h"
#include "train/optimizer.h"

namespace oryx {

// A checkpoint is a directory DIR/checkpoints/step-00001000 that appears whole or not at all: the model (a model
// directory, float32), optimizer.safetensors, and trainer.json with step, tokens and the resolved recipe. Everything
// random in training is a function of (seed, step), so no generator's state is kept.
struct TrainerState {
  int64_t step = 0, tokens = 0;
  Json recipe;
};

void save_checkpoint(const std::filesystem::path& run, const LanguageModel& model, const AdamW& optimizer,
                     const TrainerState& state, int64_t keep);  // removes all but the newest `keep`

// The newest checkpoint of a run, if any.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& run);

// Loads weights and moments in place. InputError when the checkpoint is damaged or of another model.
TrainerState load_checkpoint(const std::filesystem::path& checkpoint, LanguageModel& model, AdamW& optimizer);

// InputError naming the first key in which two resolved recipes differ, how often to log, evaluate and save aside.
void check_same_recipe(const Json& before, const Json& now, const std::filesystem::path& checkpoint);

}  // namespace oryx
