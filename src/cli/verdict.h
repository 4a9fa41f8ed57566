#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace oryx::cli {

enum class Verdict { shown, not_shown, contradicted };
const char* verdict_name(Verdict verdict);  // "shown", "not shown at this scale", "contradicted"

struct Interval {
  double mean, low, high;
};

// 95% intervals of several means over seeds ({SEED: value} each) by Student's t, with the variance pooled over all of
// them: two or three seeds of one mean alone say little of it. Infinite where no one has two seeds.
std::vector<Interval> pooled_intervals(const std::vector<Json>& by_seed);

// Whether a model "matches or beats" another, given by how much it is ahead: shown when the whole interval lies above
// -margin; contradicted when all of it lies below and the models were trained long enough (`decisive`).
Verdict judge_gain(const Interval& gain, double margin, bool decisive);

// Of a claim that is made of several: contradicted when one is, shown when all are.
Verdict all_of(const std::vector<Verdict>& verdicts);

}  // namespace oryx::cli
