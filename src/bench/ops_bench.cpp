#include "bench/ops_bench.h"

#include <ATen/Context.h>

#include <algorithm>

#include "base/progress.h"
#include "bench/cases.h"
#include "bench/ceilings.h"
#include "bench/formulas.h"
#include "bench/machine.h"
#include "bench/results.h"
#include "bench/runner.h"
#include "ops/common/parallel.h"

namespace oryx::bench {
namespace {

Ceilings ceilings(const char* when, c10::Device device, bool quick) {
  Progress progress(std::string("ceilings, ") + when, 1);
  const Ceilings out = measure_ceilings(device, quick);
  progress.update(1);
  progress.finish();
  return out;
}

}  // namespace

Json bench_ops(const OpsOptions& options, c10::Device device) {
  Effort effort;
  effort.budget_s = options.budget_s;
  if (options.quick) effort.budget_s = 0, effort.sample_s = 0.001;
  const OtherLoad load;
  const Ceilings before = ceilings("before", device, options.quick);
  // More than the caches hold, but no more than a machine can spare.
  const int64_t rotation =
      options.quick ? 1 << 20 : std::min(std::max<int64_t>(1 << 29, 2 * last_level_cache()), physical_memory() / 8);
  Inputs inputs(device, rotation);
  at::manual_seed(0);
  Json rows = Json::array();
  const auto group = [&](const char* title, std::vector<Case> (*make)(Inputs&, const OpsOptions&)) {
    std::vector<Case> cases = make(inputs, options);
    if (cases.empty()) return;
    measure(title, cases, device, effort);
    for (const Case& c : cases) rows.push_back(row_json(c.row, before.flops(c.row.dtype), before.read_gb_per_s * 1e9));
  };
  group("mixers", mixer_cases);
  group("steps", step_cases);
  group("pointwise", pointwise_cases);
  group("loss", loss_cases);
  add_library_fraction(rows);
  Json out{{"device", device.is_cpu() ? "cpu" : "cuda"}, {"threads", ops::num_threads()}};
  const auto busy = load.cores();
  out["others_busy_cores"] = busy ? Json(*busy) : Json();
  out["ceilings"] = before.to_json();
  out["ceilings_after"] = ceilings("after", device, options.quick).to_json();
  out["rotation_bytes"] = rotation;
  out["formulas"] = formulas_json();
  out["growth"] = growth(rows);
  out["mixed"] = mixed(rows);
  out["rows"] = std::move(rows);
  return out;
}

}  // namespace oryx::bench
