#pragma once

#include <cstdint>

#include "ops/common/arithmetic.h"
#include "ops/common/isa.h"

namespace oryx::ops {

// Row-major arrays: x, grad_x [rows, width] of In; y, grad_y [rows, width] of Out; weight, grad_weight [width].
template <typename In, typename Out>
struct RmsNormArgs {
  int64_t rows, width;
  const In* x;
  const Arithmetic<In>* weight;  // null: ones
  double eps, scale;
  Out* y = nullptr;  // forward
  // What x + add is normalised in place of x, and goes to `sum` [rows, width]; null: x itself.
  const Out* add = nullptr;
  In* sum = nullptr;
  // Backward, where x is the sum if there is one; a null gradient is zero for an output, not wanted for an input.
  const Out* grad_y = nullptr;
  const In* grad_sum = nullptr;
  In* grad_x = nullptr;
  Out* grad_add = nullptr;  // what grad_x is, beside it
  Arithmetic<In>* grad_weight = nullptr;
};

// In place of a weight: a number for each head [count], where row r is of head r % count. Apart from the rest, because
// CUDA's kernels without heads would lose 15 registers by two more fields.
template <typename In>
struct HeadWeights {
  int64_t count = 0;
  const Arithmetic<In>* weight = nullptr;  // null: ones
  Arithmetic<In>* grad = nullptr;
};

// Defined for (In, Out) = (float, float), (float, Bf16), (Bf16, float), (Bf16, Bf16), (double, double).
ORYX_FOR_EACH_ISA(template <typename In, typename Out>
                  void rms_norm_forward(const RmsNormArgs<In, Out>& args, const HeadWeights<In>& heads);
                  template <typename In, typename Out>
                  void rms_norm_backward(const RmsNormArgs<In, Out>& args, const HeadWeights<In>& heads);)

}  // namespace oryx::ops
