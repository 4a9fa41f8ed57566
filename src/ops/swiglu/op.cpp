#include "ops/swiglu/op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/tensors.h"
#include "ops/swiglu/cpu.h"

namespace oryx::ops {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

static void check(const at::Tensor& gate, const at::Tensor& up) {
  check_float("swiglu", "gate", gate);
  check_like("swiglu", "up", up, gate);
  check_shape("swiglu", "up", up, gate.sizes());
}

static at::Tensor forward(const at::Tensor& gate_in, const at::Tensor& up_in) {
  check(gate_in, up_in);
  const c10::DeviceGuard guard(gate_in.device());
  const at::Tensor gate = gate_in.contiguous(), up = up_in.contiguous();
  const at::Tensor y = at::empty_like(gate);
  with_storage(gate.scalar_type(), [&]<typename T>() {
    const SwigluArgs<T> args{
        .size = gate.numel(), .gate = pointer<T>(gate), .up = pointer<T>(up), .y = mutable_pointer<T>(y)};
    ORYX_KERNEL_ON(gate, swiglu_forward<T>)(args);
  });
  return y;
}

namespace {
struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up) {
    ctx->save_for_backward({gate, up});
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::forward(gate, up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward("swiglu");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor gate = saved[0].contiguous(), up = saved[1].contiguous(), grad_y = grads[0].contiguous();
    at::Tensor grad_gate, grad_up;
    if (ctx->needs_input_grad(0)) grad_gate = at::empty_like(gate);
    if (ctx->needs_input_grad(1)) grad_up = at::empty_like(up);
    with_storage(gate.scalar_type(), [&]<typename T>() {
      const SwigluArgs<T> args{.size = gate.numel(),
                               .gate = pointer<T>(gate),
                               .up = pointer<T>(up),
                               .grad_y = pointer<T>(grad_y),
                               .grad_gate = mutable_pointer<T>(grad_gate),
                               .grad_up = mutable_pointer<T>(grad_up)};
      ORYX_KERNEL_ON(gate, swiglu_backward<T>)(args);
    });
    return {grad_gate, grad_up};
  }
};
}  // namespace

static at::Tensor forward_autograd(const at::Tensor& gate, const at::Tensor& up) {
  if (wants_graph(gate, up)) return SwigluFunction::apply(gate, up);
  at::AutoDispatchBelowADInplaceOrView guard;
  return forward(gate, up);
}

static at::Tensor forward_composite(const at::Tensor& gate, const at::Tensor& up) {
  check(gate, up);
  return swiglu_aten(gate, up);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("oryx::swiglu", "").typed<decltype(forward)>();
  return op.call(gate, up);
}

}  // namespace oryx::ops

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def("swiglu(Tensor gate, Tensor up) -> Tensor");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("swiglu", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("swiglu", oryx::ops::forward_autograd);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("swiglu", oryx::ops::forward_composite);
}
#ifdef ORYX_CUDA
TORCH_LIBRARY_IMPL(oryx, CUDA, m) {
  m.impl("swiglu", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCUDA, m) {
  m.impl("swiglu", oryx::ops::forward_autograd);
}
#endif
