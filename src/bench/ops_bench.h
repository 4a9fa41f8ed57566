#pragma once

#include <c10/core/Device.h>

#include "base/json.h"
#include "bench/options.h"

namespace oryx::bench {

// Measures the operations of `options` (complete) on `device`, ceilings first. Progress goes to standard error. Returns
//   device, threads, rotation_bytes (of different data that cases bound by memory walk through),
//   others_busy_cores (used by other processes meanwhile; null when unknown), formulas,
//   ceilings and ceilings_after (the same measured again at the end: how much the machine moved),
//   rows, and what bench/results.h makes of them: growth, mixed
Json bench_ops(const OpsOptions& options, c10::Device device);

}  // namespace oryx::bench
