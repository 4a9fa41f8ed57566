#pragma once

#include <string>

#include "base/json.h"
#include "bench/case.h"

namespace oryx::bench {

// One row of the output: op, pass, dtype, T, heads, dim, batch, ms, gflops, gb_per_s, fraction_of_ceiling, bound
// ("flops" | "bytes"), tokens_per_s, peak_bytes, spread, samples, and what the operation adds. What was not counted or
// measured is null. Ceilings in flops a second of the row's dtype and in bytes a second.
Json row_json(const Row& row, double flops_ceiling, double bytes_ceiling);

// For each (op, pass, dtype, heads, dim) measured at several T: the exponents with which time and peak memory grow,
// and the time per token at the longest T over that at the shortest.
//   [{op, pass, dtype, heads, dim, from, to, exponent, memory_exponent, time_per_token_ratio}]
Json growth(const Json& rows);

// Every mixed sequence beside both mixers alone over all of its tokens, where these were measured too.
//   [{op, pass, dtype, T, heads, dim, ms, attention_ms, recurrence_ms, ratio_to_sum}]
Json mixed(const Json& rows);

// Adds fraction_of_library to the rows of linear_cross_entropy, by the "linear" row of its shape.
void add_library_fraction(Json& rows);

// The outputs of bench_ops and of bench_train as Markdown.
std::string ops_report(const Json& result);
std::string train_report(const Json& result);

}  // namespace oryx::bench
