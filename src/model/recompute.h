#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "model/language_model.h"

namespace oryx {

// While one lives, what this thread runs through LanguageModel::hidden keeps the inputs of its layers alone; the
// backward pass computes each layer again to have what lies between (Chen et al. 2016, arXiv 1604.06174). Gradients are
// the same to the bit; a step costs one forward pass more. Runs with caches are not affected.
class RecomputeGuard {
 public:
  explicit RecomputeGuard(bool on = true);
  RecomputeGuard(const RecomputeGuard&) = delete;
  RecomputeGuard& operator=(const RecomputeGuard&) = delete;
  ~RecomputeGuard();
  static bool on();

 private:
  bool before_;
};

// What the layers of one run have in common when they are computed again.
struct RecomputedRun {
  LanguageModel model;  // shares its weights
  SequenceLayout layout;
};

// Layer `layer` of the run on x [N, D], the residual stream, which must require gradients.
at::Tensor recomputed_layer(std::shared_ptr<const RecomputedRun> run, int64_t layer, const at::Tensor& x);

}  // namespace oryx
