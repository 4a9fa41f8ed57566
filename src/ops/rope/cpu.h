#pragma once

#include <cstdint>

#include "ops/common/isa.h"

namespace oryx::ops {

// x, y [tokens, heads, dim], row-major; positions [tokens]. `sign` is 1, or -1 for the rotation by the negative angle.
template <typename T>
struct RopeArgs {
  int64_t tokens, heads, dim;
  const T* x;
  const int64_t* positions;
  double base, sign;
  T* y;
};

// Defined for float, double and Bf16.
ORYX_FOR_EACH_ISA(template <typename T> void rope_rotate(const RopeArgs<T>& args);)

}  // namespace oryx::ops
