#pragma once

#include "base/json.h"
#include "cli/reproduce_plan.h"

namespace oryx::cli {

// What a reproduction came to, from comparison_results and, {MODEL: {SEED: ...}}, from evaluate_run:
//   language_modelling  [{model, mode, val_loss: SPREAD, tasks {TASK: {metric, SPREAD}}, average: SPREAD of the tasks'
//                       accuracies, against_baseline {baseline, val_loss: SPREAD, average: SPREAD}}]
//   retrieval           [{model, where, mode, fraction, attention_fraction, accuracy: SPREAD, tasks {TASK: mean}}]
//   contexts            [{model, mode, length, prefill_s, decode_s, cache_bytes}]
//   decisive, tokens_per_parameter
//   claims              [{id, claim, rule, verdict, evidence [text]}]
// SPREADs as in compare_results.h.
Json reproduction_results(const Json& comparison, const Json& evaluations);

// The same as documents: a Markdown table of the claims alone, a whole Markdown report, a self-contained page.
std::string claims_markdown(const Json& results);
std::string reproduction_markdown(const Json& results);
std::string reproduction_page(const Json& results);

}  // namespace oryx::cli
