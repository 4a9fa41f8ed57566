#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "bench/options.h"

namespace oryx::bench {

// Compares the operations of `options` (complete) on the CPU with their references, by the rule of bench/judge.h.
// Progress goes to standard error. Returns
//   isa      the instruction set that the kernels run with
//   rows     [{op, case, dtype, what, kind ("output" | "state" | "gradient"), largest, fast, naive, allowed, holds}],
//            where largest is that of the exact values, and the rest are the largest errors as parts of largest + 1e-3
//   failed   how many rows do not hold
Json bench_accuracy(const AccuracyOptions& options);

// That as Markdown: a line for each case and dtype, with the worst of its outputs, states and gradients.
std::string accuracy_report(const Json& result);

}  // namespace oryx::bench
