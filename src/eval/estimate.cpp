#include "eval/estimate.h"

#include <cmath>
#include <limits>
#include <numeric>

namespace oryx {

Estimate ratio_of(const std::vector<double>& numerators, const std::vector<double>& denominators) {
  const auto n = static_cast<double>(numerators.size());
  const double total = std::accumulate(denominators.begin(), denominators.end(), 0.0);
  const double ratio = std::accumulate(numerators.begin(), numerators.end(), 0.0) / total;
  double squares = 0;
  for (size_t i = 0; i < numerators.size(); ++i) {
    const double residual = numerators[i] - ratio * denominators[i];
    squares += residual * residual;
  }
  if (n < 2) return {ratio, std::numeric_limits<double>::quiet_NaN()};
  return {ratio, std::sqrt(squares * n / (n - 1)) / total};
}

Estimate mean_of(const std::vector<double>& values) {
  return ratio_of(values, std::vector<double>(values.size(), 1.0));
}

Estimate exp_of(const Estimate& x) {
  return {std::exp(x.value), std::exp(x.value) * x.stderr_};
}

}  // namespace oryx
