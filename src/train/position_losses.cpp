#include "train/position_losses.h"

#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "train/validation.h"

namespace oryx {

Json position_losses(const LanguageModel& model, const TrainingData& data, int64_t context) {
  c10::NoGradGuard no_grad;
  const ModelConfig& config = model.config();
  const int64_t width = (context + 15) / 16, buckets = (context + width - 1) / width;
  Json out = Json::array();
  for (int64_t i = 0; i < buckets; ++i) {
    const int64_t begin = i * width, end = std::min(context, begin + width);
    out.push_back({{"begin", begin}, {"end", end}, {"middle", 0.5 * static_cast<double>(begin + end)}});
  }
  for (const Mode mode : {Mode::attention, Mode::recurrent}) {
    if (!config.has(mode)) continue;
    std::vector<double> sums(buckets);
    std::vector<int64_t> counts(buckets);
    for (int64_t i = 0; i < data.valid_batches(); ++i) {
      const Batch batch = data.valid_batch(i);
      const SequenceLayout layout = batch_layout(model, batch, mode);
      const at::Tensor losses =
          model.losses(model.hidden(at::tensor(batch.tokens), layout), at::tensor(batch.targets)).cpu().contiguous();
      const auto* loss = losses.const_data_ptr<float>();
      for (int64_t b = 0; b < batch.sequences(); ++b) {
        for (int32_t t = batch.cu_seqlens[b]; t < batch.cu_seqlens[b + 1]; ++t) {
          if (batch.targets[t] == kIgnoredTarget) continue;
          const int64_t bucket = (t - batch.cu_seqlens[b]) / width;
          sums[bucket] += loss[t], ++counts[bucket];
        }
      }
    }
    for (int64_t i = 0; i < buckets; ++i) {
      out[i]["targets"] = counts[i];
      if (counts[i] > 0) out[i][mode_name(mode)] = sums[i] / static_cast<double>(counts[i]);
    }
  }
  return out;
}

}  // namespace oryx
