#pragma once

#include <cstdint>

#include "ops/common/arithmetic.h"
#include "ops/common/isa.h"

namespace oryx::ops {

// LogitKernels (blocks.h) on rows [0, n) of `logits` [n, width] in the storage type T: float, double or Bf16; the other
// pointers are [n], in double for double and else in float. cross_entropy_add: arrays [n], on processors alone.
ORYX_FOR_EACH_ISA(template <typename T>
                  void cross_entropy_reduce(int64_t n, int64_t width, const void* logits, const int64_t* targets,
                                            int64_t first, void* maximum, void* sum, void* target);
                  template <typename T>
                  void cross_entropy_gradient(int64_t n, int64_t width, void* logits, const int64_t* targets,
                                              int64_t first, const void* lse, const void* grad);
                  void cross_entropy_add(int64_t n, float* to, const Bf16* product);)

}  // namespace oryx::ops
