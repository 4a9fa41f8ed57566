#pragma once

#include <ATen/core/Tensor.h>

namespace oryx::ops {

// Rotary position embedding (Su et al., "RoFormer", arXiv 2104.09864), the rotate-half form: with the angle
// a_j = position * base^(-2j / Kd), j < Kd / 2,
//
//     y[j] = x[j] cos a_j - x[j + Kd/2] sin a_j,   y[j + Kd/2] = x[j + Kd/2] cos a_j + x[j] sin a_j
//
// x, y [N, H, Kd], Kd even; positions int64 [N]; base > 0. float32, bfloat16 (computed in float32) and float64; angles
// are float64 always, so that positions in the millions keep their phase. Gradient for x: the rotation by the negative
// angle. Throws c10::Error, naming the argument, for other shapes, dtypes or devices.
at::Tensor rope(const at::Tensor& x, const at::Tensor& positions, double base);

// The same, token by token in plain ATen operations: the oracle of the tests.
at::Tensor rope_reference(const at::Tensor& x, const at::Tensor& positions, double base);

// The same in ATen operations on whole tensors: what devices without kernels run.
at::Tensor rope_aten(const at::Tensor& x, const at::Tensor& positions, double base);

}  // namespace oryx::ops
