#include "bench/runner.h"

#include <algorithm>
#include <cmath>

#include "base/progress.h"
#include "bench/machine.h"

namespace oryx::bench {
namespace {

struct Plan {
  int samples = 0;
  int64_t calls = 1;  // in a sample
};

std::string label(const Row& row) {
  return row.op + " " + row.dtype + " " + std::to_string(row.T);
}

// Warms up, measures the peak, and decides how often to call.
Plan prepare(Case& c, c10::Device device, const Effort& effort) {
  double seconds = 0;
  const auto call = [&] { seconds = time_calls(device, 1, c.run); };
  c.row.peak_bytes = peak_bytes(device, call);
  // The first call may set up libraries; a long one has been preceded by shorter ones of its kind.
  if (seconds < 1) c.row.peak_bytes = peak_bytes(device, call);
  if (seconds < 0.1) call();  // without the page faults that measuring the peak brings
  seconds = std::max(seconds, 1e-8);
  Plan plan;
  plan.calls = std::max<int64_t>(1, std::llround(std::ceil(effort.sample_s / seconds)));
  const double fit = effort.budget_s / (static_cast<double>(plan.calls) * seconds);
  plan.samples = seconds > effort.long_call_s
                     ? 1
                     : static_cast<int>(std::clamp<double>(fit, effort.min_samples, effort.max_samples));
  return plan;
}

// Measuring the peaks gave memory back to the system; the hungriest case brings in what all of them need.
void make_resident(const std::vector<Case>& cases, c10::Device device) {
  const auto peak = [](const Case& c) { return c.row.peak_bytes.value_or(0); };
  const auto hungriest =
      std::max_element(cases.begin(), cases.end(), [&](const Case& a, const Case& b) { return peak(a) < peak(b); });
  if (hungriest != cases.end()) time_calls(device, 1, hungriest->run);
}

void sample(Case& c, const Plan& plan, c10::Device device) {
  if (plan.calls > 1) c.run();  // what the cases between left in the caches is not this one's business
  c.row.seconds.push_back(time_calls(device, plan.calls, c.run) / static_cast<double>(plan.calls));
}

}  // namespace

void measure(const std::string& title, std::vector<Case>& cases, c10::Device device, const Effort& effort) {
  std::vector<Plan> plans;
  int64_t total = 0;
  {
    Progress progress(title + ": warming up", static_cast<int64_t>(cases.size()));
    for (Case& c : cases) {
      progress.update(static_cast<int64_t>(plans.size()), label(c.row));
      plans.push_back(prepare(c, device, effort));
      total += plans.back().samples;
    }
    progress.update(static_cast<int64_t>(cases.size()));
    progress.finish();
  }
  make_resident(cases, device);
  Progress progress(title + ": measuring", total);
  int64_t done = 0;
  for (int round = 0; done < total; ++round) {
    for (size_t i = 0; i < cases.size(); ++i) {
      if (round >= plans[i].samples) continue;
      progress.update(done++, label(cases[i].row));
      sample(cases[i], plans[i], device);
    }
  }
  progress.update(total);
  progress.finish();
}

}  // namespace oryx::bench
