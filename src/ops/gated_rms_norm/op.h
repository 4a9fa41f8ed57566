#pragma once

#include <ATen/core/Tensor.h>

namespace oryx::ops {

// RMS normalisation per head, gated (the output norm of Gated DeltaNet, Yang et al., arXiv 2412.06464, and of Mamba-2):
//
//     y = x / sqrt(mean(x^2) + eps) * weight * silu(gate)      the mean over the last dimension
//
// x, gate, y [N, H, Vd] of one dtype; weight [Vd] in that dtype or float32. float32, bfloat16 (computed in float32) and
// float64. Gradients for x, gate and weight; weight's does not depend on the number of threads. Throws c10::Error,
// naming the argument, for other shapes, dtypes or devices.
at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps);

// The same, token by token in plain ATen operations: the oracle of the tests.
at::Tensor gated_rms_norm_reference(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps);

// The same in ATen operations on whole tensors: what devices without kernels run.
at::Tensor gated_rms_norm_aten(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps);

}  // namespace oryx::ops
