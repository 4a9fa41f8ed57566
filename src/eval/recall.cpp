#include "eval/recall.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"
#include "ops/common/packing.h"

namespace oryx {

Json RecallResult::to_json() const {
  return {
      {"accuracy", accuracy}, {"examples", examples}, {"queries", queries}, {"attention_fraction", attention_fraction}};
}

RecallResult evaluate_recall(const LanguageModel& model, const RecallTask& task, const Policy& policy, int64_t examples,
                             uint64_t seed) {
  require(examples >= 1, "the number of examples must be at least 1, but is {}", examples);
  require(task.vocab <= model.config().vocab_size, "the task's vocabulary of {} is larger than the model's {}",
          task.vocab, model.config().vocab_size);
  c10::NoGradGuard no_grad;
  const int64_t layers = model.config().num_hidden_layers;
  const RecallSource source(task, std::max<int64_t>(task.length, 8192), seed);
  RecallResult result;
  Progress progress("recall, " + policy.text(), examples);
  int64_t right = 0;
  double attended = 0;
  for (int64_t step = 0; result.examples < examples; ++step) {
    std::vector<int64_t> tokens, rows, values;
    std::vector<RoutingRequest> requests;
    for (int64_t s = 0; s < source.sequences() && result.examples < examples; ++s, ++result.examples) {
      const RecallExample example = source.example(step, s);
      for (int64_t q : example.queries) {
        rows.push_back(static_cast<int64_t>(tokens.size()) + q);
        values.push_back(example.targets[q]);
      }
      tokens.insert(tokens.end(), example.tokens.begin(), example.tokens.end());
      requests.push_back({example.tokens, task.length, example.targets});
    }
    std::vector<SequenceSpec> sequences;
    for (MixerSchedule& schedule : policy.route(model, requests)) {
      attended += schedule.attention_fraction(layers);
      sequences.push_back({std::move(schedule)});
    }
    const at::Tensor hidden = model.hidden(at::tensor(tokens), {std::move(sequences), layers, model.device()});
    const at::Tensor index = ops::upload(rows, model.device());
    const at::Tensor guess = model.logits(hidden.index_select(0, index)).argmax(-1).cpu();
    right += (guess == at::tensor(values)).sum().item<int64_t>();
    result.queries += static_cast<int64_t>(rows.size());
    progress.update(result.examples);
  }
  progress.finish();
  result.attention_fraction = attended / static_cast<double>(examples);
  result.accuracy = static_cast<double>(right) / static_cast<double>(result.queries);
  return result;
}

}  // namespace oryx
