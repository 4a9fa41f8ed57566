#pragma once

#include <ATen/core/Tensor.h>

namespace oryx::ops {

// silu(gate) * up, element by element (Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202), with
// silu(x) = x / (1 + exp(-x)).
//
// gate, up and the result have one shape, any, and one dtype: float32, bfloat16 (computed in float32) or float64.
// Gradients for both. Throws c10::Error, naming the argument, where shapes, dtypes or devices differ.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

// The same, row by row in plain ATen operations: the oracle of the tests.
at::Tensor swiglu_reference(const at::Tensor& gate, const at::Tensor& up);

// The same in ATen operations on whole tensors: what devices without kernels run.
at::Tensor swiglu_aten(const at::Tensor& gate, const at::Tensor& up);

}  // namespace oryx::ops
