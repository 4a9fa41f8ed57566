#pragma once

#include <vector>

namespace oryx::bench {

// Of samples of one quantity, in its unit; at least one sample.
double median(std::vector<double> samples);
// (max - min) / median: 0 when all samples agree.
double spread(const std::vector<double>& samples);

// The exponent p of y ~ x^p: the slope of the least squares line through (log x, log y). NaN unless there are two
// points with different x, all positive.
double growth_exponent(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace oryx::bench
