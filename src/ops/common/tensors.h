#pragma once

// Between tensors and kernels: pointers of the storage type, and what the autograd functions of all operations need.

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <optional>
#include <string_view>

#include "ops/common/arithmetic.h"
#include "ops/common/packing.h"

namespace oryx::ops {

// Calls work.operator()<T>() with the storage type T: float, double or Bf16.
template <typename Work>
decltype(auto) with_storage(at::ScalarType type, Work&& work) {
  if (type == at::kDouble) return work.template operator()<double>();
  if (type == at::kBFloat16) return work.template operator()<Bf16>();
  TORCH_INTERNAL_ASSERT(type == at::kFloat);
  return work.template operator()<float>();
}

// Null for an undefined tensor.
template <typename T>
const T* pointer(const at::Tensor& x) {
  return x.defined() ? static_cast<const T*>(x.const_data_ptr()) : nullptr;
}
template <typename T>
T* mutable_pointer(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.mutable_data_ptr()) : nullptr;
}

inline at::Tensor or_undefined(const std::optional<at::Tensor>& x) {
  return x.value_or(at::Tensor());
}
inline at::Tensor contiguous_or_undefined(const at::Tensor& x) {
  return x.defined() ? x.contiguous() : x;
}

// Small weights may stay in the accumulation type beside bfloat16 inputs; kernels read them in that type.
inline void check_weight(const char* op, const char* name, const at::Tensor& weight, const at::Tensor& x,
                         at::IntArrayRef sizes) {
  const auto type = weight.scalar_type(), wide = accumulate_type(x.scalar_type());
  TORCH_CHECK(type == x.scalar_type() || type == wide, op, ": ", name, " must be ", x.scalar_type(), " or ", wide,
              ", but is ", type);
  TORCH_CHECK(weight.device() == x.device(), op, ": ", name, " must be on ", x.device(), ", but is on ",
              weight.device());
  check_shape(op, name, weight, sizes);
}
inline void check_activation(const char* op, std::string_view activation) {
  TORCH_CHECK(activation == "none" || activation == "silu", op, ": activation must be \"none\" or \"silu\", but is \"",
              activation, "\"");
}
inline at::Tensor in_arithmetic(const at::Tensor& weight, const at::Tensor& x) {
  return weight.defined() ? weight.to(accumulate_type(x.scalar_type())).contiguous() : weight;
}

template <typename... Tensors>
bool wants_graph(const Tensors&... tensors) {
  return c10::GradMode::is_enabled() && ((tensors.defined() && tensors.requires_grad()) || ...);
}

inline void refuse_double_backward(const char* op) {
  TORCH_CHECK(!c10::GradMode::is_enabled(), op,
              ": gradients of gradients are not implemented; differentiate without create_graph");
}

}  // namespace oryx::ops
