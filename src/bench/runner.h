#pragma once

#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "bench/case.h"

namespace oryx::bench {

// How much is measured of each case.
struct Effort {
  double budget_s = 2;     // of samples
  double sample_s = 0.03;  // short calls are repeated until a sample takes this long
  int min_samples = 3;     // whatever the budget,
  double long_call_s = 5;  // but one sample of a call that takes longer than this
  int max_samples = 15;
};

// Fills in seconds and peak_bytes of every row. First each case is called for warming up and for its peak memory, in
// the given order: long calls after shorter ones of their kind. Then samples are taken in rounds over all cases, so
// that a slow moment of the machine does not fall on one case alone.
void measure(const std::string& title, std::vector<Case>& cases, c10::Device device, const Effort& effort);

}  // namespace oryx::bench
