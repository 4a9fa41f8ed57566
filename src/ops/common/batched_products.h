#pragma once

// Batched matrix products in the inputs' precision that add up, and come out, in the accumulation type.

#include <ATen/core/Tensor.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>

namespace oryx::ops {

// On a GPU the library takes bfloat16 factors and gives a float32 result; elsewhere widened factors give the same.
inline bool has_mixed_products(const at::Tensor& x) {
  return x.is_cuda() && x.scalar_type() == at::kBFloat16;
}
inline at::Tensor widened(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? x.to(at::kFloat) : x;
}

inline at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  return has_mixed_products(a) ? at::bmm(a, b, at::kFloat) : at::bmm(widened(a), widened(b));
}

inline void product_into(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  at::Tensor to = out;
  if (has_mixed_products(a))
    at::bmm_out(to, a, b, at::kFloat);
  else
    at::bmm_out(to, widened(a), widened(b));
}

// out += alpha a b
inline void add_product(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha = 1) {
  if (has_mixed_products(a))
    at::baddbmm_out(out, out, a, b, at::kFloat, 1, alpha);
  else
    at::baddbmm_out(out, out, widened(a), widened(b), 1, alpha);
}

}  // namespace oryx::ops
