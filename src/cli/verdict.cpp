#include "cli/verdict.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace oryx::cli {
namespace {

// Student's t, two-sided 95%, by degrees of freedom; beyond ten the last one errs on the careful side.
constexpr std::array kStudent{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228};

double mean_over(const Json& by_seed) {
  double sum = 0;
  for (const auto& [seed, value] : by_seed.items()) sum += value.get<double>();
  return sum / static_cast<double>(by_seed.size());
}

}  // namespace

const char* verdict_name(Verdict verdict) {
  return verdict == Verdict::shown          ? "shown"
         : verdict == Verdict::contradicted ? "contradicted"
                                            : "not shown at this scale";
}

std::vector<Interval> pooled_intervals(const std::vector<Json>& by_seed) {
  double squares = 0;
  size_t freedom = 0;
  for (const Json& values : by_seed) {
    const double mean = mean_over(values);
    for (const auto& [seed, value] : values.items()) squares += std::pow(value.get<double>() - mean, 2);
    freedom += values.size() - 1;
  }
  std::vector<Interval> out;
  for (const Json& values : by_seed) {
    double half = std::numeric_limits<double>::infinity();
    if (freedom > 0)
      half = kStudent[std::min(freedom, kStudent.size()) - 1] *
             std::sqrt(squares / static_cast<double>(freedom) / static_cast<double>(values.size()));
    const double mean = mean_over(values);
    out.push_back({mean, mean - half, mean + half});
  }
  return out;
}

Verdict judge_gain(const Interval& gain, double margin, bool decisive) {
  if (gain.low >= -margin) return Verdict::shown;
  return decisive && gain.high < -margin ? Verdict::contradicted : Verdict::not_shown;
}

Verdict all_of(const std::vector<Verdict>& verdicts) {
  if (std::ranges::count(verdicts, Verdict::contradicted) > 0) return Verdict::contradicted;
  const bool all = !verdicts.empty() && std::ranges::count(verdicts, Verdict::shown) == std::ssize(verdicts);
  return all ? Verdict::shown : Verdict::not_shown;
}

}  // namespace oryx::cli
