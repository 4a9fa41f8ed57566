#include "eval/report/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/progress.h"

namespace oryx::report {
namespace {

// The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `x`.
double round_step(double x) {
  const double power = std::pow(10.0, std::floor(std::log10(x)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0})
    if (factor * power >= x * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

// Decimals that tell multiples of `step` apart.
int decimals_of(double step) {
  for (int digits = 0; digits < 12; ++digits) {
    const double scaled = step * std::pow(10.0, digits);
    if (std::abs(scaled - std::round(scaled)) < 1e-6 * scaled) return digits;
  }
  return 12;
}

std::string tick_label(double value, double step, Unit unit) {
  if (unit == Unit::percent) return fmt::format("{:.{}f}%", 100 * value, decimals_of(100 * step));
  if (unit == Unit::number) return fmt::format("{:.{}f}", value, decimals_of(step));
  double divisor = 1;
  const char* suffix = "";
  for (const auto& [size, name] : {std::pair{1e9, "G"}, std::pair{1e6, "M"}, std::pair{1e3, "k"}})
    if (std::abs(value) >= size * (1 - 1e-9)) {
      divisor = size, suffix = name;
      break;
    }
  return fmt::format("{:.{}f}{}", value / divisor, decimals_of(step / divisor), suffix);
}

}  // namespace

Scale::Scale(const Axis& axis, const std::vector<double>& values, double from, double to, int wanted)
    : logarithmic_(axis.logarithmic), low_(0), high_(0), from_(from), to_(to) {
  bool any = false;
  for (const double v : values) {
    if (!shows(v)) continue;
    low_ = any ? std::min(low_, v) : v;
    high_ = any ? std::max(high_, v) : v;
    any = true;
  }
  if (!any) low_ = logarithmic_ ? 1 : 0, high_ = logarithmic_ ? 10 : 1;
  if (axis.low) low_ = *axis.low;
  if (axis.high) high_ = *axis.high;
  if (logarithmic_)
    logarithmic_ticks(axis);
  else
    linear_ticks(axis, wanted);
}

bool Scale::shows(double value) const {
  return std::isfinite(value) && (!logarithmic_ || value > 0);
}

double Scale::place(double value) const {
  const double v = std::clamp(value, low_, high_);
  const double part = logarithmic_ ? std::log(v / low_) / std::log(high_ / low_) : (v - low_) / (high_ - low_);
  return from_ + part * (to_ - from_);
}

void Scale::linear_ticks(const Axis& axis, int wanted) {
  if (!(high_ > low_)) {  // one value, or a range the wrong way round: make room around it
    const double room = low_ == 0 ? 1 : std::abs(low_) / 2;
    if (!axis.low) low_ -= room;
    high_ = low_ + 2 * room;
  }
  const double step = round_step((high_ - low_) / std::max(1, wanted));
  if (!axis.low) low_ = std::floor(low_ / step + 1e-9) * step;
  if (!axis.high) high_ = std::ceil(high_ / step - 1e-9) * step;
  for (double i = std::ceil(low_ / step - 1e-9); i * step <= high_ + 1e-9 * step; ++i) {
    const double value = i == 0 ? 0 : i * step;  // no "-0"
    ticks_.push_back({value, tick_label(value, step, axis.unit)});
  }
}

void Scale::logarithmic_ticks(const Axis& axis) {
  low_ = std::max(low_, 1e-300);
  if (!(high_ > low_)) high_ = low_ * 10;
  const auto add = [&](double value) {
    if (value < low_ * (1 - 1e-9) || value > high_ * (1 + 1e-9)) return;
    ticks_.push_back({value, tick_label(value, std::pow(10.0, std::floor(std::log10(value) + 1e-9)), axis.unit)});
  };
  const bool dense = std::log10(high_ / low_) <= 3;  // also 2 and 5 of every decade
  const double first = std::floor(std::log10(low_)), last = std::ceil(std::log10(high_));
  const double stride = std::max(1.0, std::ceil((last - first) / 8));
  for (double exponent = first; exponent <= last; exponent += stride)
    for (const double factor : {1.0, 2.0, 5.0})
      if (factor == 1.0 || dense) add(factor * std::pow(10.0, exponent));
}

std::string format_value(double value, Unit unit) {
  if (!std::isfinite(value)) return "none";
  switch (unit) {
    case Unit::percent:
      return fmt::format("{:.1f}%", 100 * value);
    case Unit::count:
      return human_count(value);
    case Unit::number:
      break;
  }
  if (value == 0) return "0";
  const int before = static_cast<int>(std::floor(std::log10(std::abs(value)))) + 1;
  return before > 6 || before < -5 ? fmt::format("{:.3e}", value)
                                   : fmt::format("{:.{}f}", value, std::clamp(4 - std::max(before, 0), 0, 6));
}

}  // namespace oryx::report
