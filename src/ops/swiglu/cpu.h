#pragma once

#include <cstdint>

#include "ops/common/isa.h"

namespace oryx::ops {

// Arrays of `size` elements.
template <typename T>
struct SwigluArgs {
  int64_t size;
  const T *gate, *up;
  T* y = nullptr;  // forward
  // backward; a null gradient is not wanted
  const T* grad_y = nullptr;
  T *grad_gate = nullptr, *grad_up = nullptr;
};

// Defined for float, double and Bf16.
ORYX_FOR_EACH_ISA(template <typename T> void swiglu_forward(const SwigluArgs<T>& args);
                  template <typename T> void swiglu_backward(const SwigluArgs<T>& args);)

}  // namespace oryx::ops
