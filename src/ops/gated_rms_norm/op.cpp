#include "ops/gated_rms_norm/op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/tensors.h"
#include "ops/gated_rms_norm/cpu.h"

namespace oryx::ops {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

static void check(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps) {
  const char* op = "gated_rms_norm";
  check_float(op, "x", x);
  TORCH_CHECK(x.dim() == 3 && x.size(2) >= 1, op, ": x must have shape [N, H, Vd] with Vd >= 1, but has ", x.sizes());
  check_like(op, "gate", gate, x);
  check_shape(op, "gate", gate, x.sizes());
  check_weight(op, "weight", weight, x, {x.size(2)});
  TORCH_CHECK(eps >= 0, op, ": eps must not be negative, but is ", eps);
}

static at::Tensor forward(const at::Tensor& x_in, const at::Tensor& gate_in, const at::Tensor& weight_in, double eps) {
  check(x_in, gate_in, weight_in, eps);
  const c10::DeviceGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), gate = gate_in.contiguous(), weight = in_arithmetic(weight_in, x);
  const at::Tensor y = at::empty_like(x);
  with_storage(x.scalar_type(), [&]<typename T>() {
    const GatedRmsNormArgs<T> args{.rows = x.size(0) * x.size(1),
                                   .width = x.size(2),
                                   .x = pointer<T>(x),
                                   .gate = pointer<T>(gate),
                                   .weight = pointer<Arithmetic<T>>(weight),
                                   .eps = eps,
                                   .y = mutable_pointer<T>(y)};
    ORYX_KERNEL_ON(x, gated_rms_norm_forward<T>)(args);
  });
  return y;
}

namespace {
struct GatedRmsNormFunction : torch::autograd::Function<GatedRmsNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                            double eps) {
    ctx->save_for_backward({x, gate, weight});
    ctx->saved_data["eps"] = eps;
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::forward(x, gate, weight, eps);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward("gated_rms_norm");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor x = saved[0].contiguous(), gate = saved[1].contiguous(), weight = in_arithmetic(saved[2], x);
    const at::Tensor grad_y = grads[0].contiguous();
    at::Tensor grad_x, grad_gate, grad_weight;
    if (ctx->needs_input_grad(0)) grad_x = at::empty_like(x);
    if (ctx->needs_input_grad(1)) grad_gate = at::empty_like(gate);
    if (ctx->needs_input_grad(2)) grad_weight = at::empty_like(weight);
    with_storage(x.scalar_type(), [&]<typename T>() {
      const GatedRmsNormArgs<T> args{.rows = x.size(0) * x.size(1),
                                     .width = x.size(2),
                                     .x = pointer<T>(x),
                                     .gate = pointer<T>(gate),
                                     .weight = pointer<Arithmetic<T>>(weight),
                                     .eps = ctx->saved_data["eps"].toDouble(),
                                     .grad_y = pointer<T>(grad_y),
                                     .grad_x = mutable_pointer<T>(grad_x),
                                     .grad_gate = mutable_pointer<T>(grad_gate),
                                     .grad_weight = mutable_pointer<Arithmetic<T>>(grad_weight)};
      ORYX_KERNEL_ON(x, gated_rms_norm_backward<T>)(args);
    });
    if (grad_weight.defined()) grad_weight = grad_weight.to(saved[2].scalar_type());
    return {grad_x, grad_gate, grad_weight, at::Tensor()};
  }
};
}  // namespace

static at::Tensor forward_autograd(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps) {
  if (wants_graph(x, gate, weight)) return GatedRmsNormFunction::apply(x, gate, weight, eps);
  at::AutoDispatchBelowADInplaceOrView guard;
  return forward(x, gate, weight, eps);
}

static at::Tensor forward_composite(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps) {
  check(x, gate, weight, eps);
  return gated_rms_norm_aten(x, gate, weight, eps);
}

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("oryx::gated_rms_norm", "").typed<decltype(forward)>();
  return op.call(x, gate, weight, eps);
}

}  // namespace oryx::ops

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def("gated_rms_norm(Tensor x, Tensor gate, Tensor weight, float eps) -> Tensor");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("gated_rms_norm", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("gated_rms_norm", oryx::ops::forward_autograd);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("gated_rms_norm", oryx::ops::forward_composite);
}
#ifdef ORYX_CUDA
TORCH_LIBRARY_IMPL(oryx, CUDA, m) {
  m.impl("gated_rms_norm", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCUDA, m) {
  m.impl("gated_rms_norm", oryx::ops::forward_autograd);
}
#endif
