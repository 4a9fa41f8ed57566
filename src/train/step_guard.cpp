#include "train/step_guard.h"

#include <algorithm>
#include <cmath>

namespace oryx {
namespace {

constexpr double kWeight = 0.02;  // of the newest value: the last 100 have seven eighths of the whole
constexpr int64_t kUnjudged = 50;

}  // namespace

std::optional<double> StepGuard::Statistics::judge(double x, double outlier_z) {
  const double deviation = std::sqrt(variance);
  const double z = deviation > 0 ? (x - mean) / deviation : 0;
  const bool outlier = count >= kUnjudged && outlier_z > 0 && z >= outlier_z;
  // An outlier counts as one that is only just so, or the next one would hide behind it.
  if (outlier) x = mean + outlier_z * deviation;
  // West 1979 with exponential weights; a plain average as long as there are few values.
  const double weight = std::max(kWeight, 1 / static_cast<double>(++count));
  const double difference = x - mean;
  mean += weight * difference;
  variance = (1 - weight) * (variance + weight * difference * difference);
  return outlier ? std::optional(z) : std::nullopt;
}

StepGuard::Verdict StepGuard::judge(double loss, double grad_norm) {
  Verdict verdict;
  if (!std::isfinite(loss) || !std::isfinite(grad_norm)) {
    verdict.skip = true;
    ++skipped_, ++in_a_row_;
    return verdict;
  }
  in_a_row_ = 0;
  verdict.loss_z = loss_.judge(loss, outlier_z_);
  verdict.norm_z = norm_.judge(std::log(std::max(grad_norm, 1e-30)), outlier_z_);
  return verdict;
}

Json StepGuard::state() const {
  const auto numbers = [](const Statistics& s) {
    return Json{{"mean", s.mean}, {"variance", s.variance}, {"count", s.count}};
  };
  return {{"skipped", skipped_}, {"in_a_row", in_a_row_}, {"loss", numbers(loss_)}, {"grad_norm", numbers(norm_)}};
}

void StepGuard::load_state(const Json& state) {
  Fields fields(state, "trainer.json: guard");
  skipped_ = fields.integer("skipped");
  in_a_row_ = fields.integer("in_a_row");
  for (auto& [name, statistics] : {std::pair("loss", &loss_), std::pair("grad_norm", &norm_)}) {
    Fields numbers = fields.table(name);
    *statistics = {numbers.number("mean"), numbers.number("variance"), numbers.integer("count")};
  }
}

}  // namespace oryx
