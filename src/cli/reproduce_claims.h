#pragma once

#include "base/json.h"

namespace oryx::cli {

// Of the abstract's claims: [{id, claim, rule, verdict, evidence [text]}]. `models` as in comparison_results,
// `results` as reproduction_results fills it.
Json judge_claims(const Json& models, const Json& results);

}  // namespace oryx::cli
