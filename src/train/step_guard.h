#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"

namespace oryx {

// Watches the loss and the gradients' norm of every step: a step in which one of them is not finite must be skipped,
// and one that lies far above what went before is an outlier.
class StepGuard {
 public:
  // Training stops at `nonfinite_limit` skipped steps in a row (0: never); an outlier is `outlier_z` or more standard
  // deviations above the mean (0: nothing is). Mean and deviation of the loss, and of the norm's logarithm, are
  // exponentially weighted over the last 100 steps or so; the first 50 are not judged.
  StepGuard(int64_t nonfinite_limit, double outlier_z) : limit_(nonfinite_limit), outlier_z_(outlier_z) {}

  struct Verdict {
    bool skip = false;                     // not finite: leave the weights as they are
    std::optional<double> loss_z, norm_z;  // of outliers alone
  };
  Verdict judge(double loss, double grad_norm);
  int64_t skipped() const { return skipped_; }    // of all steps
  int64_t in_a_row() const { return in_a_row_; }  // up to the last step
  bool must_stop() const { return limit_ > 0 && in_a_row_ >= limit_; }

  Json state() const;
  void load_state(const Json& state);

 private:
  struct Statistics {
    double mean = 0, variance = 0;
    int64_t count = 0;
    std::optional<double> judge(double x, double outlier_z);
  };
  int64_t limit_;
  double outlier_z_;
  int64_t skipped_ = 0, in_a_row_ = 0;
  Statistics loss_, norm_;
};

}  // namespace oryx
