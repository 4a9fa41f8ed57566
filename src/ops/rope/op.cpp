#include "ops/rope/op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/tensors.h"
#include "ops/rope/cpu.h"

namespace oryx::ops {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

static void check(const at::Tensor& x, const at::Tensor& positions, double base) {
  const char* op = "rope";
  check_float(op, "x", x);
  TORCH_CHECK(x.dim() == 3 && x.size(2) >= 2 && x.size(2) % 2 == 0, op,
              ": x must have shape [N, H, Kd] with an even Kd, but has ", x.sizes());
  TORCH_CHECK(positions.scalar_type() == at::kLong, op, ": positions must be int64, but is ", positions.scalar_type());
  TORCH_CHECK(positions.device() == x.device(), op, ": positions must be on ", x.device(), ", but is on ",
              positions.device());
  check_shape(op, "positions", positions, {x.size(0)});
  TORCH_CHECK(base > 0, op, ": base must be positive, but is ", base);
}

static at::Tensor rotate(const at::Tensor& x_in, const at::Tensor& positions_in, double base, double sign) {
  const c10::DeviceGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), positions = positions_in.contiguous(), y = at::empty_like(x);
  with_storage(x.scalar_type(), [&]<typename T>() {
    const RopeArgs<T> args{.tokens = x.size(0),
                           .heads = x.size(1),
                           .dim = x.size(2),
                           .x = pointer<T>(x),
                           .positions = pointer<int64_t>(positions),
                           .base = base,
                           .sign = sign,
                           .y = mutable_pointer<T>(y)};
    ORYX_KERNEL_ON(x, rope_rotate<T>)(args);
  });
  return y;
}

static at::Tensor forward(const at::Tensor& x, const at::Tensor& positions, double base) {
  check(x, positions, base);
  return rotate(x, positions, base, 1);
}

namespace {
struct RopeFunction : torch::autograd::Function<RopeFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& positions, double base) {
    ctx->save_for_backward({positions});
    ctx->saved_data["base"] = base;
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::forward(x, positions, base);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward("rope");
    const at::Tensor positions = ctx->get_saved_variables()[0];
    return {rotate(grads[0], positions, ctx->saved_data["base"].toDouble(), -1), at::Tensor(), at::Tensor()};
  }
};
}  // namespace

static at::Tensor forward_autograd(const at::Tensor& x, const at::Tensor& positions, double base) {
  if (wants_graph(x)) return RopeFunction::apply(x, positions, base);
  at::AutoDispatchBelowADInplaceOrView guard;
  return forward(x, positions, base);
}

static at::Tensor forward_composite(const at::Tensor& x, const at::Tensor& positions, double base) {
  check(x, positions, base);
  return rope_aten(x, positions, base);
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& positions, double base) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("oryx::rope", "").typed<decltype(forward)>();
  return op.call(x, positions, base);
}

}  // namespace oryx::ops

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def("rope(Tensor x, Tensor positions, float base) -> Tensor");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("rope", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("rope", oryx::ops::forward_autograd);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("rope", oryx::ops::forward_composite);
}
#ifdef ORYX_CUDA
TORCH_LIBRARY_IMPL(oryx, CUDA, m) {
  m.impl("rope", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCUDA, m) {
  m.impl("rope", oryx::ops::forward_autograd);
}
#endif
