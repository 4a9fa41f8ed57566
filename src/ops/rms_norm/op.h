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
// x [..., d]; weight [d] in x's dtype or float32, absent for ones, or [H, 1] beside x [..., H, d]: a number for each
// head; y [..., d] in `dtype` (default: x's). float32, bfloat16 (computed in float32) and float64; a float64 x gives a
// float64 y. Gradients for x and weight. Throws c10::Error, naming the argument, for other shapes, dtypes or devices.
at::Tensor rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, double scale = 1.0,
                    std::optional<at::ScalarType> dtype = std::nullopt);

// A residual stream's step in one pass: the sum x + y in x's dtype, and rms_norm(x + y, weight, eps, 1, y's dtype).
// y [..., d] like x, in x's dtype or bfloat16. Gradients for x, y and weight.
std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight,
                                                double eps);

// Its gradients from what it gave, in one pass, for who keeps its sum: those of x and y are the same but for the dtype.
// A gradient of an output may be undefined, which is zero.
struct AddRmsNormGradients {
  at::Tensor x, y, weight;
};
AddRmsNormGradients add_rms_norm_backward(const at::Tensor& sum, const at::Tensor& weight, double eps,
                                          const at::Tensor& grad_sum, const at::Tensor& grad_normed,
                                          at::ScalarType type_of_y);

// rms_norm row by row in plain ATen operations: the oracle of the tests.
at::Tensor rms_norm_reference(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps,
                              double scale = 1.0, std::optional<at::ScalarType> dtype = std::nullopt);

// rms_norm in ATen operations on whole tensors: what devices without kernels run.
at::Tensor rms_norm_aten(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, double scale = 1.0,
                         std::optional<at::ScalarType> dtype = std::nullopt);

}  // namespace oryx::ops
