#include "bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace oryx::bench {

double median(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const size_t n = samples.size();
  return n % 2 == 1 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
}

double spread(const std::vector<double>& samples) {
  const auto [low, high] = std::minmax_element(samples.begin(), samples.end());
  return (*high - *low) / median(samples);
}

double growth_exponent(const std::vector<double>& x, const std::vector<double>& y) {
  double mean_x = 0, mean_y = 0;
  const auto n = static_cast<double>(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    if (!(x[i] > 0) || !(y[i] > 0)) return std::numeric_limits<double>::quiet_NaN();
    mean_x += std::log(x[i]) / n, mean_y += std::log(y[i]) / n;
  }
  double xy = 0, xx = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double dx = std::log(x[i]) - mean_x;
    xy += dx * (std::log(y[i]) - mean_y), xx += dx * dx;
  }
  return xx > 1e-12 ? xy / xx : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace oryx::bench
