#pragma once

#include <optional>
#include <string>
#include <vector>

namespace oryx::report {

// How an axis prints its numbers: as they are, a fraction as percent, or with k, M, G.
enum class Unit { number, percent, count };

struct Axis {
  std::string label;
  Unit unit = Unit::number;
  bool logarithmic = false;                   // values that are not positive are left out of the chart
  std::optional<double> low = {}, high = {};  // the range; absent: from the data, widened to whole ticks
};

struct Tick {
  double value;
  std::string label;
};

// A range of numbers laid out on [from, to] (pixels), with its ticks.
class Scale {
 public:
  // `values` are what must be visible; about `wanted` ticks at round numbers.
  Scale(const Axis& axis, const std::vector<double>& values, double from, double to, int wanted);

  bool shows(double value) const;    // finite, and positive on a logarithmic axis
  double place(double value) const;  // clamped to the range
  const std::vector<Tick>& ticks() const { return ticks_; }
  double low() const { return low_; }
  double high() const { return high_; }

 private:
  void linear_ticks(const Axis& axis, int wanted);
  void logarithmic_ticks(const Axis& axis);

  bool logarithmic_;
  double low_, high_, from_, to_;
  std::vector<Tick> ticks_;
};

// For tips and tables: four significant digits, 12.3%, 4.10M.
std::string format_value(double value, Unit unit);

}  // namespace oryx::report
