#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "base/json.h"
#include "data/batch.h"
#include "model/language_model.h"
#include "train/process_group.h"
#include "train/training_data.h"

namespace oryx {

// The batch with a schedule of its own for each sequence: schedule(b, its length).
SequenceLayout batch_layout(const LanguageModel& model, const Batch& batch,
                            const std::function<MixerSchedule(int64_t b, int64_t length)>& schedule);
SequenceLayout batch_layout(const LanguageModel& model, const Batch& batch, Mode mode);  // in one mode throughout

// `scale` times the sum over the batch's targets of the loss in nats, a scalar that can be differentiated.
at::Tensor loss_sum(const LanguageModel& model, const Batch& batch, const SequenceLayout& layout, double scale = 1);

// Nats per token on the validation data in every mode that the model has: "attention", "recurrent", and with both also
// "mixed" (alternating sixteenths of the context) and "tail" (attention for the last tenth), and "schedule" when the
// recipe trains on one. Empty without such data. The ranks of the group take batches in turn; all get the result.
Json validation_losses(const LanguageModel& model, const TrainingData& data, const Recipe& recipe, ProcessGroup& group);

}  // namespace oryx
