#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

namespace oryx::ops {

// Rows of a fixed Euclidean length, as the delta rule wants its queries and keys (Yang et al., "Gated Delta Networks",
// arXiv 2412.06464, section 3.4):
//
//     a = x or silu(x),   y = a * scale / sqrt(sum(a^2) + eps)      the sum over the last dimension
//
// x [..., d], d >= 1; y like x; activation "none" or "silu". float32, bfloat16 (computed in float32) and float64.
// Gradient for x. Throws c10::Error, naming the argument, for other shapes, dtypes or activations.
at::Tensor unit_norm(const at::Tensor& x, double eps = 1e-6, double scale = 1.0, std::string_view activation = "none");

// The same, row by row in plain ATen operations: the oracle of the tests.
at::Tensor unit_norm_reference(const at::Tensor& x, double eps = 1e-6, double scale = 1.0,
                               std::string_view activation = "none");

// The same in ATen operations on whole tensors: what devices without kernels run.
at::Tensor unit_norm_aten(const at::Tensor& x, double eps = 1e-6, double scale = 1.0,
                          std::string_view activation = "none");

}  // namespace oryx::ops
