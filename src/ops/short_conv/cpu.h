#pragma once

#include <cstdint>

#include "ops/common/arithmetic.h"
#include "ops/common/isa.h"

namespace oryx::ops {

// Row-major arrays: x, y and their gradients [N, C]; weight, grad_weight [C, W]; states and their gradients [B, C,
// W-1].
template <typename T>
struct ShortConvArgs {
  int64_t sequences, channels, width;  // B, C, W
  int64_t num_tokens;                  // N
  const int64_t* tokens;               // [B+1], where x lies: where each sequence begins
  const T* x;
  const Arithmetic<T>* weight;
  const T* initial_state;  // null: zeros
  bool silu;
  // forward
  T *y = nullptr, *final_state = nullptr;
  // backward; a null gradient of an output is zero, of an input not wanted
  const T *grad_y = nullptr, *grad_final = nullptr;
  T *grad_x = nullptr, *grad_initial = nullptr;
  Arithmetic<T>* grad_weight = nullptr;
};

// Defined for float, double and Bf16.
ORYX_FOR_EACH_ISA(template <typename T> void short_conv_forward(const ShortConvArgs<T>& args);
                  template <typename T> void short_conv_backward(const ShortConvArgs<T>& args);)

}  // namespace oryx::ops
