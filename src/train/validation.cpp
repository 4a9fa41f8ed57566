#include "train/validation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "base/error.h"

namespace oryx {

SequenceLayout batch_layout(const LanguageModel& model, const Batch& batch,
                            const std::function<MixerSchedule(int64_t b, int64_t length)>& schedule) {
  std::vector<SequenceSpec> sequences;
  sequences.reserve(batch.sequences());
  for (int64_t b = 0; b < batch.sequences(); ++b)
    sequences.push_back({schedule(b, batch.cu_seqlens[b + 1] - batch.cu_seqlens[b])});
  return {std::move(sequences), model.config().num_hidden_layers, model.device()};
}

SequenceLayout batch_layout(const LanguageModel& model, const Batch& batch, Mode mode) {
  return batch_layout(model, batch, [mode](int64_t, int64_t length) { return MixerSchedule::uniform(mode, length); });
}

at::Tensor loss_sum(const LanguageModel& model, const Batch& batch, const SequenceLayout& layout, double scale) {
  return model.loss_sum(model.hidden(at::tensor(batch.tokens), layout), at::tensor(batch.targets), scale);
}

Json validation_losses(const LanguageModel& model, const TrainingData& data, const Recipe& recipe,
                       ProcessGroup& group) {
  Json out = Json::object();
  if (data.valid_batches() == 0) return out;
  c10::NoGradGuard no_grad;
  const ModelConfig& config = model.config();
  std::vector<std::pair<std::string, std::string>> modes;
  if (config.has(Mode::attention)) modes.emplace_back("attention", "attention");
  if (config.has(Mode::recurrent)) modes.emplace_back("recurrent", "recurrent");
  if (modes.size() == 2) {
    modes.emplace_back("mixed", fmt::format("alternate:{}", std::max<int64_t>(1, recipe.data.context / 16)));
    modes.emplace_back("tail", "tail:0.1");
    if (!recipe.mixing.schedule.empty()) modes.emplace_back("schedule", recipe.mixing.schedule);
  }
  for (const auto& [name, text] : modes) {
    const ScheduleSpec spec = ScheduleSpec::parse(text);
    std::vector<double> sums{0, 0};  // of losses; of targets
    for (int64_t i = group.rank(); i < data.valid_batches(); i += group.size()) {
      const Batch batch = data.valid_batch(i);
      const SequenceLayout layout =
          batch_layout(model, batch, [&](int64_t, int64_t length) { return spec.resolve(length, config); });
      sums[0] += loss_sum(model, batch, layout).item<double>();
      sums[1] += static_cast<double>(batch.target_count());
    }
    group.sum(sums);
    out[name] = sums[0] / std::max(sums[1], 1.0);
  }
  return out;
}

}  // namespace oryx
