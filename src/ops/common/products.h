#pragma once

#include <ATen/core/Tensor.h>

namespace oryx::ops {

// LibTorch's matrix products, but for bfloat16 on processors without AVX-512: there its own loops reach a tenth to a
// hundredth of float's rate (oneDNN wants AVX-512), and products of floats are taken and rounded instead.

// out = a b: matrices of one dtype, of any strides.
at::Tensor& product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b);

// a b, and sum += a b, likewise.
at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b);
void add_matrix_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

// a b in the accumulation type: float32 for bfloat16 factors, rounded to bfloat16 on the way where not
// has_wide_products.
at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b);
// Whether products of such factors can be added up in the accumulation type; sum += a b.
bool has_wide_products(const at::Tensor& factor);
void add_wide_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

// x weight^T, x [..., in], weight [out, in]. Differentiable.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace oryx::ops
