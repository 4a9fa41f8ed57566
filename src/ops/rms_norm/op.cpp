#include "ops/rms_norm/op.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/tensors.h"
#include "ops/rms_norm/cpu.h"

namespace oryx::ops {

using OptionalTensor = std::optional<at::Tensor>;
using OptionalType = std::optional<at::ScalarType>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A number for each head.
static bool by_head(const at::Tensor& weight) {
  return weight.defined() && weight.dim() == 2;
}

static void check(const at::Tensor& x, const OptionalTensor& weight, double eps, OptionalType dtype) {
  const char* op = "rms_norm";
  check_float(op, "x", x);
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) >= 1, op, ": x must have shape [..., d] with d >= 1, but has ", x.sizes());
  TORCH_CHECK(eps >= 0, op, ": eps must not be negative, but is ", eps);
  if (x.dim() >= 2 && by_head(or_undefined(weight)))
    check_weight(op, "weight", *weight, x, {x.size(-2), 1});
  else if (weight)
    check_weight(op, "weight", *weight, x, {x.size(-1)});
  if (!dtype) return;
  const bool wide = x.scalar_type() == at::kDouble;
  TORCH_CHECK(wide ? *dtype == at::kDouble : *dtype == at::kFloat || *dtype == at::kBFloat16, op, ": dtype must be ",
              wide ? "float64 as x is" : "float32 or bfloat16", ", but is ", *dtype);
}

// Calls work.operator()<In, Out>() with the storage types of input and output.
template <typename Work>
static void with_types(at::ScalarType in, at::ScalarType out, Work&& work) {
  with_storage(in, [&]<typename In>() {
    if constexpr (std::is_same_v<In, double>) {
      work.template operator()<double, double>();
    } else if (out == at::kFloat) {
      work.template operator()<In, float>();
    } else {
      work.template operator()<In, Bf16>();
    }
  });
}

// What both passes take; all contiguous.
template <typename In, typename Out>
static RmsNormArgs<In, Out> inputs(const at::Tensor& x, const at::Tensor& weight, double eps, double scale) {
  return {.rows = x.numel() / x.size(-1),
          .width = x.size(-1),
          .x = pointer<In>(x),
          .weight = by_head(weight) ? nullptr : pointer<Arithmetic<In>>(weight),
          .eps = eps,
          .scale = scale};
}
template <typename In>
static HeadWeights<In> heads_of(const at::Tensor& weight, const at::Tensor& grad = {}) {
  if (!by_head(weight)) return {};
  return {weight.size(0), pointer<Arithmetic<In>>(weight), mutable_pointer<Arithmetic<In>>(grad)};
}

// y = rms_norm(x); with `add`, sum = x + add and y = rms_norm(sum). All contiguous.
static void run(const at::Tensor& x, const at::Tensor& weight, double eps, double scale, const at::Tensor& y,
                const at::Tensor& add = {}, const at::Tensor& sum = {}) {
  with_types(x.scalar_type(), y.scalar_type(), [&]<typename In, typename Out>() {
    auto args = inputs<In, Out>(x, weight, eps, scale);
    args.y = mutable_pointer<Out>(y);
    args.add = pointer<Out>(add), args.sum = mutable_pointer<In>(sum);
    ORYX_KERNEL_ON(x, rms_norm_forward<In, Out>)(args, heads_of<In>(weight));
  });
}

// Of rms_norm(x), where grad_sum, if defined, comes to grad_x, and grad_add is what grad_x is, in grad_y's dtype.
// Gradients that are not defined are not wanted; all contiguous.
static void run_backward(const at::Tensor& x, const at::Tensor& weight, double eps, double scale,
                         const at::Tensor& grad_y, const at::Tensor& grad_sum, const at::Tensor& grad_x,
                         const at::Tensor& grad_add, const at::Tensor& grad_weight) {
  with_types(x.scalar_type(), grad_y.scalar_type(), [&]<typename In, typename Out>() {
    auto args = inputs<In, Out>(x, weight, eps, scale);
    args.grad_y = pointer<Out>(grad_y), args.grad_sum = pointer<In>(grad_sum);
    args.grad_x = mutable_pointer<In>(grad_x), args.grad_add = mutable_pointer<Out>(grad_add);
    if (!by_head(weight)) args.grad_weight = mutable_pointer<Arithmetic<In>>(grad_weight);
    ORYX_KERNEL_ON(x, rms_norm_backward<In, Out>)(args, heads_of<In>(weight, grad_weight));
  });
}

static at::Tensor forward(const at::Tensor& x_in, const OptionalTensor& weight_in, double eps, double scale,
                          OptionalType dtype) {
  check(x_in, weight_in, eps, dtype);
  const c10::DeviceGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), weight = in_arithmetic(or_undefined(weight_in), x);
  const at::Tensor y = at::empty(x.sizes(), x.options().dtype(dtype.value_or(x.scalar_type())));
  run(x, weight, eps, scale, y);
  return y;
}

namespace {
struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const OptionalTensor& weight, double eps,
                            double scale, OptionalType dtype) {
    ctx->save_for_backward({x, or_undefined(weight)});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["scale"] = scale;
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::forward(x, weight, eps, scale, dtype);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward("rms_norm");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor x = saved[0].contiguous(), weight = in_arithmetic(saved[1], x), grad_y = grads[0].contiguous();
    at::Tensor grad_x, grad_weight;
    if (ctx->needs_input_grad(0)) grad_x = at::empty_like(x);
    if (weight.defined() && ctx->needs_input_grad(1)) grad_weight = at::empty_like(weight);
    run_backward(x, weight, ctx->saved_data["eps"].toDouble(), ctx->saved_data["scale"].toDouble(), grad_y, {}, grad_x,
                 {}, grad_weight);
    if (grad_weight.defined()) grad_weight = grad_weight.to(saved[1].scalar_type());
    return {grad_x, grad_weight, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};
}  // namespace

static at::Tensor forward_autograd(const at::Tensor& x, const OptionalTensor& weight, double eps, double scale,
                                   OptionalType dtype) {
  if (wants_graph(x, or_undefined(weight))) return RmsNormFunction::apply(x, weight, eps, scale, dtype);
  at::AutoDispatchBelowADInplaceOrView guard;
  return forward(x, weight, eps, scale, dtype);
}

using Pair = std::tuple<at::Tensor, at::Tensor>;

static void check_add(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps) {
  check(x, weight, eps, y.scalar_type());
  TORCH_CHECK(y.sizes() == x.sizes() && y.device() == x.device(), "add_rms_norm: y must have x's shape ", x.sizes(),
              " and device, but has ", y.sizes());
}

static Pair add_forward(const at::Tensor& x_in, const at::Tensor& y_in, const at::Tensor& weight_in, double eps) {
  check_add(x_in, y_in, weight_in, eps);
  const c10::DeviceGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), y = y_in.contiguous(), weight = in_arithmetic(weight_in, x);
  const at::Tensor sum = at::empty_like(x), normed = at::empty_like(y);
  run(x, weight, eps, 1.0, normed, y, sum);
  return {sum, normed};
}

AddRmsNormGradients add_rms_norm_backward(const at::Tensor& sum, const at::Tensor& weight_in, double eps,
                                          const at::Tensor& grad_sum, const at::Tensor& grad_normed,
                                          at::ScalarType type_of_y) {
  if (!grad_normed.defined()) return {grad_sum, grad_sum.defined() ? grad_sum.to(type_of_y) : grad_sum, {}};
  const c10::DeviceGuard guard(sum.device());
  const at::Tensor weight = in_arithmetic(weight_in, sum);
  AddRmsNormGradients out{at::empty_like(sum), {}, at::empty_like(weight)};
  const bool alike = type_of_y == sum.scalar_type();
  if (!alike) out.y = at::empty_like(sum, sum.options().dtype(type_of_y));
  run_backward(sum, weight, eps, 1.0, grad_normed.to(type_of_y).contiguous(), contiguous_or_undefined(grad_sum), out.x,
               out.y, out.weight);
  if (alike) out.y = out.x;
  out.weight = out.weight.to(weight_in.scalar_type());
  return out;
}

namespace {
struct AddRmsNormFunction : torch::autograd::Function<AddRmsNormFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight,
                               double eps) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [sum, normed] = add_forward(x, y, weight, eps);
    ctx->save_for_backward({sum, weight});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["type"] = y.scalar_type();
    ctx->set_materialize_grads(false);
    return {sum, normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward("add_rms_norm");
    const auto saved = ctx->get_saved_variables();
    const auto out = add_rms_norm_backward(saved[0], saved[1], ctx->saved_data["eps"].toDouble(), grads[0], grads[1],
                                           ctx->saved_data["type"].toScalarType());
    return {out.x, out.y, out.weight, at::Tensor()};
  }
};
}  // namespace

static Pair add_composite(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps) {
  check_add(x, y, weight, eps);
  const at::Tensor sum = (x + y).to(x.scalar_type());
  return {sum, rms_norm(sum, weight, eps, 1.0, y.scalar_type())};
}

static Pair add_autograd(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps) {
  if (wants_graph(x, y, weight)) {
    const auto out = AddRmsNormFunction::apply(x, y, weight, eps);
    return {out[0], out[1]};
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return add_forward(x, y, weight, eps);
}

Pair add_rms_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("oryx::add_rms_norm", "").typed<decltype(add_forward)>();
  return op.call(x, y, weight, eps);
}

static at::Tensor forward_composite(const at::Tensor& x, const OptionalTensor& weight, double eps, double scale,
                                    OptionalType dtype) {
  check(x, weight, eps, dtype);
  return rms_norm_aten(x, weight, eps, scale, dtype);
}

at::Tensor rms_norm(const at::Tensor& x, const OptionalTensor& weight, double eps, double scale, OptionalType dtype) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("oryx::rms_norm", "").typed<decltype(forward)>();
  return op.call(x, weight, eps, scale, dtype);
}

}  // namespace oryx::ops

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def("rms_norm(Tensor x, Tensor? weight, float eps, float scale=1.0, ScalarType? dtype=None) -> Tensor");
  m.def("add_rms_norm(Tensor x, Tensor y, Tensor weight, float eps) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("rms_norm", oryx::ops::forward);
  m.impl("add_rms_norm", oryx::ops::add_forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("rms_norm", oryx::ops::forward_autograd);
  m.impl("add_rms_norm", oryx::ops::add_autograd);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("rms_norm", oryx::ops::forward_composite);
  m.impl("add_rms_norm", oryx::ops::add_composite);
}
#ifdef ORYX_CUDA
TORCH_LIBRARY_IMPL(oryx, CUDA, m) {
  m.impl("rms_norm", oryx::ops::forward);
  m.impl("add_rms_norm", oryx::ops::add_forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCUDA, m) {
  m.impl("rms_norm", oryx::ops::forward_autograd);
  m.impl("add_rms_norm", oryx::ops::add_autograd);
}
#endif
