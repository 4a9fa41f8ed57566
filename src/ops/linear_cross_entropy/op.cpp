#include "ops/linear_cross_entropy/op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "ops/common/tensors.h"
#include "ops/linear_cross_entropy/blocks.h"
#include "ops/linear_cross_entropy/cpu.h"

namespace oryx::ops {
namespace {

using at::Tensor;

void reduce(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& maximum, const Tensor& sum,
            const Tensor& target) {
  with_storage(logits.scalar_type(), [&]<typename T>() {
    ORYX_KERNEL_ON(logits, cross_entropy_reduce<T>)
    (logits.size(0), logits.size(1), logits.const_data_ptr(), pointer<int64_t>(targets), first,
     maximum.mutable_data_ptr(), sum.mutable_data_ptr(), target.mutable_data_ptr());
  });
}

void gradient(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& lse, const Tensor& grad) {
  with_storage(logits.scalar_type(), [&]<typename T>() {
    ORYX_KERNEL_ON(logits, cross_entropy_gradient<T>)
    (logits.size(0), logits.size(1), logits.mutable_data_ptr(), pointer<int64_t>(targets), first, lse.const_data_ptr(),
     grad.const_data_ptr());
  });
}

void add(const Tensor& to, const Tensor& product) {
  ORYX_KERNEL(cross_entropy_add)(to.numel(), mutable_pointer<float>(to), pointer<Bf16>(product));
}

constexpr LogitKernels kLogitKernels{reduce, gradient, add};

Tensor linear_cross_entropy_kernels(const Tensor& h, const Tensor& weight, const Tensor& targets,
                                    int64_t ignore_index) {
  return blocked_linear_cross_entropy(kLogitKernels, h, weight, targets, ignore_index);
}

Tensor linear_cross_entropy_sum_kernels(const Tensor& h, const Tensor& weight, const Tensor& targets,
                                        int64_t ignore_index, double scale) {
  return blocked_linear_cross_entropy_sum(kLogitKernels, h, weight, targets, ignore_index, scale);
}

std::tuple<Tensor, Tensor> linear_log_probs_kernels(const Tensor& h, const Tensor& weight, const Tensor& targets) {
  return blocked_linear_log_probs(kLogitKernels, h, weight, targets);
}

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def("linear_cross_entropy(Tensor h, Tensor weight, Tensor targets, int ignore_index=-100) -> Tensor");
  m.def(
      "linear_cross_entropy_sum(Tensor h, Tensor weight, Tensor targets, int ignore_index=-100, float scale=1.0) -> "
      "Tensor");
  m.def("linear_log_probs(Tensor h, Tensor weight, Tensor targets) -> (Tensor, Tensor)");
}
// One function for both keys: it records a graph where one is wanted.
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("linear_cross_entropy", linear_cross_entropy_kernels);
  m.impl("linear_cross_entropy_sum", linear_cross_entropy_sum_kernels);
  m.impl("linear_log_probs", linear_log_probs_kernels);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("linear_cross_entropy", linear_cross_entropy_kernels);
  m.impl("linear_cross_entropy_sum", linear_cross_entropy_sum_kernels);
  m.impl("linear_log_probs", linear_log_probs_kernels);
}
#ifdef ORYX_CUDA
TORCH_LIBRARY_IMPL(oryx, CUDA, m) {
  m.impl("linear_cross_entropy", linear_cross_entropy_kernels);
  m.impl("linear_cross_entropy_sum", linear_cross_entropy_sum_kernels);
  m.impl("linear_log_probs", linear_log_probs_kernels);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCUDA, m) {
  m.impl("linear_cross_entropy", linear_cross_entropy_kernels);
  m.impl("linear_cross_entropy_sum", linear_cross_entropy_sum_kernels);
  m.impl("linear_log_probs", linear_log_probs_kernels);
}
#endif
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("linear_cross_entropy", linear_cross_entropy_aten);
  m.impl("linear_cross_entropy_sum", linear_cross_entropy_sum_aten);
  m.impl("linear_log_probs", linear_log_probs_aten);
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& h, const Tensor& weight, const Tensor& targets, int64_t ignore_index) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("oryx::linear_cross_entropy", "")
                             .typed<decltype(linear_cross_entropy)>();
  return op.call(h, weight, targets, ignore_index);
}

Tensor linear_cross_entropy_sum(const Tensor& h, const Tensor& weight, const Tensor& targets, int64_t ignore_index,
                                double scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("oryx::linear_cross_entropy_sum", "")
                             .typed<decltype(linear_cross_entropy_sum)>();
  return op.call(h, weight, targets, ignore_index, scale);
}

std::tuple<Tensor, Tensor> linear_log_probs(const Tensor& h, const Tensor& weight, const Tensor& targets) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("oryx::linear_log_probs", "").typed<decltype(linear_log_probs)>();
  return op.call(h, weight, targets);
}

}  // namespace oryx::ops
