#pragma once

#include <vector>

namespace oryx {

struct Estimate {
  double value = 0, stderr_ = 0;  // stderr_ is NaN where one sample cannot tell
};

// Mean, and sample standard deviation / sqrt(n).
Estimate mean_of(const std::vector<double>& values);
// sum(numerators) / sum(denominators), with the standard error of a ratio estimate by the delta method.
Estimate ratio_of(const std::vector<double>& numerators, const std::vector<double>& denominators);
// exp(x), with the standard error by the delta method.
Estimate exp_of(const Estimate& x);

}  // namespace oryx
