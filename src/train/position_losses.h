#pragma once

#include "base/json.h"
#include "model/language_model.h"
#include "train/training_data.h"

namespace oryx {

// Nats per token on the validation data by the position of the token in its sequence, with each mode that the model has
// throughout: [{begin, end (positions [begin, end), a sixteenth of the context), middle, targets (how many), MODE:
// nats, ...}]. A mode is left out where there are no targets.
Json position_losses(const LanguageModel& model, const TrainingData& data, int64_t context);

}  // namespace oryx
