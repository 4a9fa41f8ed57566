#pragma once

#include <filesystem>

#include "base/json.h"
#include "cli/options.h"
#include "cli/reproduce_plan.h"

namespace oryx::cli {

// InputError for tasks, their data and places that are not there: before training, not after it.
void check_plan(const EvaluationPlan& plan, const std::filesystem::path& tasks);

// What RUN/model answers; what was measured before (RUN/evaluations.json) is not repeated:
//   modes      {MODE: {TASK: result (TaskResult::to_json)}}
//   retrieval  [{task, where (a place; "all" for a mode throughout), mode (there), fraction (asked for), accuracy, n,
//              attention_fraction}]; models with two modes are swept, but for fixed hybrids
//   contexts   [{mode, length, prefill_s, decode_s (per token), cache_bytes}], with `contexts`
Json evaluate_run(const std::filesystem::path& run, const EvaluationPlan& plan, const std::filesystem::path& tasks,
                  bool contexts, const Common& common);

}  // namespace oryx::cli
