#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace oryx::ops {

// RMS normalisation over the last dimension (Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv
// 1910.07467):
//
//     y = x / sqrt(mean(x^2) + eps) * weight * scale
//
// x [..., d]; weight [d] in x's dtype or float32, absent for ones; y [..., d] in `dtype` (default: x's). float32,
// bfloat16 (computed in float32) and float64; a float64 x gives a float64 y. Gradients for x and weight. Throws
// c10::Error, naming the argument, for other shapes, dtypes or devices.
at::Tensor rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, double scale = 1.0,
                    std::optional<at::ScalarType> dtype = std::nullopt);

// A residual stream's step: the sum x + y in x's dtype, and rms_norm(x + y, weight, eps, 1, y's dtype). y [..., d] like
// x, in x's dtype or bfloat16. On the CPU, without gradients, one pass; otherwise the two operations.
std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight,
                                                double eps);

// rms_norm row by row in plain ATen operations: the oracle of the tests.
at::Tensor rms_norm_reference(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps,
                              double scale = 1.0, std::optional<at::ScalarType> dtype = std::nullopt);

// rms_norm in ATen operations on whole tensors: what devices without kernels run.
at::Tensor rms_norm_aten(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, double scale = 1.0,
                         std::optional<at::ScalarType> dtype = std::nullopt);

}  // namespace oryx::ops
