#include "ops/unit_norm/op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/tensors.h"
#include "ops/unit_norm/cpu.h"

namespace oryx::ops {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

static void check(const at::Tensor& x, double eps, std::string_view activation) {
  const char* op = "unit_norm";
  check_float(op, "x", x);
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) >= 1, op, ": x must have shape [..., d] with d >= 1, but has ", x.sizes());
  TORCH_CHECK(eps >= 0, op, ": eps must not be negative, but is ", eps);
  check_activation(op, activation);
}

static at::Tensor forward(const at::Tensor& x_in, double eps, double scale, std::string_view activation) {
  check(x_in, eps, activation);
  const c10::DeviceGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), y = at::empty_like(x);
  with_storage(x.scalar_type(), [&]<typename T>() {
    const UnitNormArgs<T> args{.rows = x.numel() / x.size(-1),
                               .width = x.size(-1),
                               .x = pointer<T>(x),
                               .eps = eps,
                               .scale = scale,
                               .silu = activation == "silu",
                               .y = mutable_pointer<T>(y)};
    ORYX_KERNEL_ON(x, unit_norm_forward<T>)(args);
  });
  return y;
}

namespace {
struct UnitNormFunction : torch::autograd::Function<UnitNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, double eps, double scale,
                            std::string_view activation) {
    ctx->save_for_backward({x});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["silu"] = activation == "silu";
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::forward(x, eps, scale, activation);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward("unit_norm");
    const at::Tensor x = ctx->get_saved_variables()[0].contiguous(), grad_y = grads[0].contiguous();
    const at::Tensor grad_x = at::empty_like(x);
    with_storage(x.scalar_type(), [&]<typename T>() {
      const UnitNormArgs<T> args{.rows = x.numel() / x.size(-1),
                                 .width = x.size(-1),
                                 .x = pointer<T>(x),
                                 .eps = ctx->saved_data["eps"].toDouble(),
                                 .scale = ctx->saved_data["scale"].toDouble(),
                                 .silu = ctx->saved_data["silu"].toBool(),
                                 .grad_y = pointer<T>(grad_y),
                                 .grad_x = mutable_pointer<T>(grad_x)};
      ORYX_KERNEL_ON(x, unit_norm_backward<T>)(args);
    });
    return {grad_x, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};
}  // namespace

static at::Tensor forward_autograd(const at::Tensor& x, double eps, double scale, std::string_view activation) {
  if (wants_graph(x)) return UnitNormFunction::apply(x, eps, scale, activation);
  at::AutoDispatchBelowADInplaceOrView guard;
  return forward(x, eps, scale, activation);
}

static at::Tensor forward_composite(const at::Tensor& x, double eps, double scale, std::string_view activation) {
  check(x, eps, activation);
  return unit_norm_aten(x, eps, scale, activation);
}

at::Tensor unit_norm(const at::Tensor& x, double eps, double scale, std::string_view activation) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("oryx::unit_norm", "").typed<decltype(forward)>();
  return op.call(x, eps, scale, activation);
}

}  // namespace oryx::ops

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def("unit_norm(Tensor x, float eps=1e-6, float scale=1.0, str activation=\"none\") -> Tensor");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("unit_norm", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("unit_norm", oryx::ops::forward_autograd);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("unit_norm", oryx::ops::forward_composite);
}
#ifdef ORYX_CUDA
TORCH_LIBRARY_IMPL(oryx, CUDA, m) {
  m.impl("unit_norm", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCUDA, m) {
  m.impl("unit_norm", oryx::ops::forward_autograd);
}
#endif
