#pragma once

#include <cstdint>

#include "ops/common/arithmetic.h"
#include "ops/common/isa.h"

namespace oryx::ops {

// Row-major arrays [rows, width] (a row is one head of one token); weight, grad_weight [width].
template <typename T>
struct GatedRmsNormArgs {
  int64_t rows, width;
  const T *x, *gate;
  const Arithmetic<T>* weight;
  double eps;
  T* y = nullptr;  // forward
  // backward; a null gradient is not wanted
  const T* grad_y = nullptr;
  T *grad_x = nullptr, *grad_gate = nullptr;
  Arithmetic<T>* grad_weight = nullptr;
};

// Defined for float, double and Bf16.
ORYX_FOR_EACH_ISA(template <typename T> void gated_rms_norm_forward(const GatedRmsNormArgs<T>& args);
                  template <typename T> void gated_rms_norm_backward(const GatedRmsNormArgs<T>& args);)

}  // namespace oryx::ops
