#pragma once

#include "base/json.h"
#include "data/recall.h"
#include "generate/policy.h"
#include "model/language_model.h"

namespace oryx {

struct RecallResult {
  double accuracy = 0;  // queries whose most probable token is the key's value
  int64_t examples = 0, queries = 0;
  double attention_fraction = 0;  // of the tokens
  Json to_json() const;
};

// Associative recall on `examples` sequences drawn from `task` with a seed of their own. All tokens are given to the
// policy: the values asked for are not among them. InputError when the task's vocabulary is larger than the model's.
RecallResult evaluate_recall(const LanguageModel& model, const RecallTask& task, const Policy& policy, int64_t examples,
                             uint64_t seed);

}  // namespace oryx
