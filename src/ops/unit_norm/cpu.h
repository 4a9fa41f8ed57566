#pragma once

#include <cstdint>

#include "ops/common/isa.h"

namespace oryx::ops {

// Row-major arrays [rows, width].
template <typename T>
struct UnitNormArgs {
  int64_t rows, width;
  const T* x;
  double eps, scale;
  bool silu;
  T* y = nullptr;             // forward
  const T* grad_y = nullptr;  // backward
  T* grad_x = nullptr;
};

// Defined for float, double and Bf16.
ORYX_FOR_EACH_ISA(template <typename T> void unit_norm_forward(const UnitNormArgs<T>& args);
                  template <typename T> void unit_norm_backward(const UnitNormArgs<T>& args);)

}  // namespace oryx::ops
