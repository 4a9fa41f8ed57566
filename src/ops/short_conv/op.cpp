#include "ops/short_conv/op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/tensors.h"
#include "ops/short_conv/cpu.h"

namespace oryx::ops {

using OptionalTensor = std::optional<at::Tensor>;
using Outputs = std::tuple<at::Tensor, at::Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

static std::shared_ptr<const Packing> check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cu_seqlens,
                                            const OptionalTensor& initial_state, std::string_view activation) {
  const char* op = "short_conv";
  check_float(op, "x", x);
  TORCH_CHECK(x.dim() == 2 && x.size(1) >= 1, op, ": x must have shape [N, C] with C >= 1, but has ", x.sizes());
  check_weight(op, "weight", weight, x, {x.size(1), -1});
  const int64_t width = weight.size(1);
  TORCH_CHECK(width >= 1, op, ": weight must have shape [C, W] with W >= 1, but has ", weight.sizes());
  check_activation(op, activation);
  auto packing = shared_packing(op, cu_seqlens, std::nullopt, x.size(0));
  if (initial_state) {
    check_like(op, "initial_state", *initial_state, x);
    check_shape(op, "initial_state", *initial_state, {packing->sequences(), x.size(1), width - 1});
  }
  return packing;
}

// packing.tokens in the memory of x's device, for as long as the packing lives.
static const int64_t* tokens_on(const at::Tensor& x, const Packing& packing) {
  return x.is_cpu() ? packing.tokens.data() : pointer<int64_t>(packing.tokens_on(x.device()));
}

static Outputs forward(const at::Tensor& x_in, const at::Tensor& weight_in, const at::Tensor& cu_seqlens,
                       const OptionalTensor& initial_in, std::string_view activation) {
  const auto packing = check(x_in, weight_in, cu_seqlens, initial_in, activation);
  const c10::DeviceGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), weight = in_arithmetic(weight_in, x);
  const at::Tensor initial_state = contiguous_or_undefined(or_undefined(initial_in));
  const at::Tensor y = at::empty_like(x);
  const at::Tensor final_state = at::empty({packing->sequences(), x.size(1), weight.size(1) - 1}, x.options());
  with_storage(x.scalar_type(), [&]<typename T>() {
    const ShortConvArgs<T> args{.sequences = packing->sequences(),
                                .channels = x.size(1),
                                .width = weight.size(1),
                                .num_tokens = x.size(0),
                                .tokens = tokens_on(x, *packing),
                                .x = pointer<T>(x),
                                .weight = pointer<Arithmetic<T>>(weight),
                                .initial_state = pointer<T>(initial_state),
                                .silu = activation == "silu",
                                .y = mutable_pointer<T>(y),
                                .final_state = mutable_pointer<T>(final_state)};
    ORYX_KERNEL_ON(x, short_conv_forward<T>)(args);
  });
  return {y, final_state};
}

namespace {
struct ShortConvFunction : torch::autograd::Function<ShortConvFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                               const OptionalTensor& initial_state, const at::Tensor& cu_seqlens,
                               std::string_view activation) {
    ctx->save_for_backward({x, weight, or_undefined(initial_state), cu_seqlens});
    ctx->saved_data["silu"] = activation == "silu";
    ctx->set_materialize_grads(false);
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [y, final_state] = ops::forward(x, weight, cu_seqlens, initial_state, activation);
    return {y, final_state};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward("short_conv");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor x = saved[0].contiguous(), weight = in_arithmetic(saved[1], x);
    const at::Tensor initial_state = contiguous_or_undefined(saved[2]);
    const at::Tensor grad_y = contiguous_or_undefined(grads[0]), grad_final = contiguous_or_undefined(grads[1]);
    const auto packing = shared_packing("short_conv", saved[3], std::nullopt, x.size(0));
    at::Tensor grad_x, grad_weight, grad_initial;
    if (ctx->needs_input_grad(0)) grad_x = at::empty_like(x);
    if (ctx->needs_input_grad(1)) grad_weight = at::empty_like(weight);
    if (initial_state.defined() && ctx->needs_input_grad(2)) grad_initial = at::empty_like(initial_state);
    with_storage(x.scalar_type(), [&]<typename T>() {
      const ShortConvArgs<T> args{.sequences = packing->sequences(),
                                  .channels = x.size(1),
                                  .width = weight.size(1),
                                  .num_tokens = x.size(0),
                                  .tokens = tokens_on(x, *packing),
                                  .x = pointer<T>(x),
                                  .weight = pointer<Arithmetic<T>>(weight),
                                  .initial_state = pointer<T>(initial_state),
                                  .silu = ctx->saved_data["silu"].toBool(),
                                  .grad_y = pointer<T>(grad_y),
                                  .grad_final = pointer<T>(grad_final),
                                  .grad_x = mutable_pointer<T>(grad_x),
                                  .grad_initial = mutable_pointer<T>(grad_initial),
                                  .grad_weight = mutable_pointer<Arithmetic<T>>(grad_weight)};
      ORYX_KERNEL_ON(x, short_conv_backward<T>)(args);
    });
    if (grad_weight.defined()) grad_weight = grad_weight.to(saved[1].scalar_type());
    return {grad_x, grad_weight, grad_initial, at::Tensor(), at::Tensor()};
  }
};
}  // namespace

static Outputs forward_autograd(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cu_seqlens,
                                const OptionalTensor& initial_state, std::string_view activation) {
  if (wants_graph(x, weight, or_undefined(initial_state))) {
    const auto outputs = ShortConvFunction::apply(x, weight, initial_state, cu_seqlens, activation);
    return {outputs[0], outputs[1]};
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return forward(x, weight, cu_seqlens, initial_state, activation);
}

static Outputs forward_composite(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cu_seqlens,
                                 const OptionalTensor& initial_state, std::string_view activation) {
  check(x, weight, cu_seqlens, initial_state, activation);
  return short_conv_aten(x, weight, cu_seqlens, initial_state, activation);
}

Outputs short_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cu_seqlens,
                   const OptionalTensor& initial_state, std::string_view activation) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("oryx::short_conv", "").typed<decltype(forward)>();
  return op.call(x, weight, cu_seqlens, initial_state, activation);
}

}  // namespace oryx::ops

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def(
      "short_conv(Tensor x, Tensor weight, Tensor cu_seqlens, Tensor? initial_state=None, str activation=\"none\") -> "
      "(Tensor y, Tensor final_state)");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("short_conv", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("short_conv", oryx::ops::forward_autograd);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("short_conv", oryx::ops::forward_composite);
}
#ifdef ORYX_CUDA
TORCH_LIBRARY_IMPL(oryx, CUDA, m) {
  m.impl("short_conv", oryx::ops::forward);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCUDA, m) {
  m.impl("short_conv", oryx::ops::forward_autograd);
}
#endif
