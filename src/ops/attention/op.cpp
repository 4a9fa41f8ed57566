#include "ops/attention/op.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "ops/attention/plan.h"
#include "ops/attention/rotated.h"
#include "ops/common/tensors.h"
#include "ops/rope/op.h"

namespace oryx::ops {

using at::Tensor;
using Optional = std::optional<Tensor>;

std::shared_ptr<const Packing> check_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                               const Tensor& cu_seqlens, const Optional& read_index, double scale,
                                               double rope_base) {
  constexpr const char* op = "oryx::attention";
  check_float(op, "q", q);
  check_shape(op, "k", k, {-1, -1, -1});
  check_shape(op, "q", q, {read_index ? read_index->numel() : k.size(0), -1, k.size(2)});
  const int64_t N = k.size(0), Hkv = k.size(1);
  TORCH_CHECK(Hkv > 0 && q.size(1) > 0 && q.size(1) % Hkv == 0, op, ": q must have a multiple of k's ", Hkv,
              " heads, but has ", q.size(1));
  check_shape(op, "v", v, {N, Hkv, -1});
  TORCH_CHECK(k.size(2) > 0 && v.size(2) > 0, op, ": k and v must have head dims of at least 1");
  check_like(op, "k", k, q);
  check_like(op, "v", v, q);
  TORCH_CHECK(std::isfinite(scale), op, ": scale must be finite, but is ", scale);
  TORCH_CHECK(std::isfinite(rope_base) && rope_base >= 0, op, ": rope_base must be 0 or positive, but is ", rope_base);
  TORCH_CHECK(rope_base == 0 || k.size(2) % 2 == 0, op, ": rope_base needs an even key head dim, but it is ",
              k.size(2));
  return shared_packing(op, cu_seqlens, read_index, N);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Contiguous inputs and the arguments that both passes take; refers to itself, so it stays where it is made.
struct Prepared {
  Tensor q, k, v;
  std::shared_ptr<const Packing> shared;
  const Packing& packing;

  Prepared(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in, std::shared_ptr<const Packing> packed)
      : q(q_in.contiguous()), k(k_in.contiguous()), v(v_in.contiguous()), shared(std::move(packed)), packing(*shared) {}
  Prepared(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens, const Optional& read)
      : Prepared(q, k, v, shared_packing("oryx::attention", cu_seqlens, read, k.size(0))) {}
  Prepared(const Prepared&) = delete;

  bool only_few_rows() const {
    AttentionArgs args{};
    fill(args, 1, 0);
    for (int64_t b = 0; b < packing.sequences(); ++b)
      if (!few_rows(args, b)) return false;
    return true;
  }
  void fill(AttentionArgs& args, double scale, double rope_base) const {
    args.heads = q.size(1), args.kv_heads = k.size(1), args.key_dim = k.size(2), args.value_dim = v.size(2);
    args.scale = scale, args.rope_base = rope_base;
    args.tokens = packing.tokens.data(), args.rows = packing.rows.data();
    args.read = packing.read.empty() ? nullptr : packing.read.data();
    args.q = q.const_data_ptr(), args.k = k.const_data_ptr(), args.v = v.const_data_ptr();
  }
};

struct ForwardResult {
  Tensor o, lse, residual;
};

ForwardResult run_forward(const Prepared& in, double scale, double rope_base, bool keep) {
  const int64_t H = in.q.size(1), Hkv = in.k.size(1), Vd = in.v.size(2), R = in.packing.num_rows();
  const auto acc = in.q.options().dtype(accumulate_type(in.q.scalar_type()));
  const AttentionForwardPlan plan(in.packing, H, Hkv);
  ForwardResult out{at::empty({R, H, Vd}, in.q.options()), at::empty({R, H, 2}, acc), Tensor()};
  if (keep && in.q.scalar_type() == at::kBFloat16) out.residual = at::empty_like(out.o);
  const Tensor partial = at::empty({plan.partial_rows, Vd + 2}, acc);
  AttentionForward args{};
  in.fill(args, scale, rope_base);
  args.units = plan.units.data(), args.num_units = static_cast<int64_t>(plan.units.size());
  args.segments = plan.segments.data(), args.num_segments = static_cast<int64_t>(plan.segments.size());
  args.merges = plan.merges.data(), args.num_merges = static_cast<int64_t>(plan.merges.size());
  args.o = out.o.mutable_data_ptr(), args.lse = out.lse.mutable_data_ptr();
  args.residual = mutable_pointer<void>(out.residual);
  args.partial = partial.mutable_data_ptr();
  with_storage(in.q.scalar_type(), [&]<typename T>() { ORYX_PAIR_KERNEL(attention_forward<T>)(args); });
  return out;
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& cu_seqlens, const Optional& read_index, double scale) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [o, lse, residual] = run_forward(Prepared(q, k, v, cu_seqlens, read_index), scale, 0, /*keep=*/true);
    ctx->saved_data["scale"] = scale;
    ctx->save_for_backward({q, k, v, cu_seqlens, or_undefined(read_index), o, lse, residual});
    return o;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("oryx::attention");
    const auto saved = ctx->get_saved_variables();
    const Prepared in(saved[0], saved[1], saved[2], saved[3], saved[4].defined() ? Optional(saved[4]) : std::nullopt);
    const Tensor &o = saved[5], &lse = saved[6], &residual = saved[7], grad_o = grads[0].contiguous();
    const int64_t H = in.q.size(1);
    Tensor grad_q, grad_k, grad_v;
    if (ctx->needs_input_grad(0)) grad_q = at::empty(in.q.sizes(), lse.options());
    if (ctx->needs_input_grad(1)) grad_k = at::empty_like(in.k);
    if (ctx->needs_input_grad(2)) grad_v = at::empty_like(in.v);
    const Tensor delta = at::empty({in.q.size(0), H}, lse.options());

    const AttentionBackwardPlan plan(in.packing, H, in.k.size(1));
    std::vector<int32_t> turns(static_cast<size_t>(plan.turns));
    AttentionBackward args{};
    in.fill(args, ctx->saved_data["scale"].toDouble(), 0);
    args.units = plan.units.data(), args.num_units = static_cast<int64_t>(plan.units.size());
    args.turns = turns.data();
    args.lse = lse.const_data_ptr(), args.delta = delta.const_data_ptr(), args.grad_o = grad_o.const_data_ptr();
    args.grad_q = mutable_pointer<void>(grad_q);
    args.grad_k = mutable_pointer<void>(grad_k), args.grad_v = mutable_pointer<void>(grad_v);
    with_storage(in.q.scalar_type(), [&]<typename T>() {
      ORYX_PAIR_KERNEL(attention_delta<T>)
      (delta.numel(), in.v.size(2), o.const_data_ptr(), pointer<void>(residual), args.grad_o, delta.mutable_data_ptr());
      ORYX_PAIR_KERNEL(attention_backward<T>)(args);
    });
    if (grad_q.defined()) grad_q = grad_q.to(in.q.scalar_type());
    return {grad_q, grad_k, grad_v, Tensor(), Tensor(), Tensor()};
  }
};

Tensor attention_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens,
                     const Optional& read_index, double scale, double rope_base) {
  const auto packing = check_attention(q, k, v, cu_seqlens, read_index, scale, rope_base);
  const Prepared in(q, k, v, packing);
  if (rope_base == 0 || in.only_few_rows()) return run_forward(in, scale, rope_base, /*keep=*/false).o;
  const auto [turned_q, turned_k] = rotated(rope, q, k, *packing, rope_base);
  return run_forward(Prepared(turned_q, turned_k, v, packing), scale, 0, /*keep=*/false).o;
}

Tensor attention_autograd_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens,
                              const Optional& read_index, double scale, double rope_base) {
  if (!wants_graph(q, k, v)) {
    at::AutoDispatchBelowADInplaceOrView below;
    return attention_cpu(q, k, v, cu_seqlens, read_index, scale, rope_base);
  }
  const auto packing = check_attention(q, k, v, cu_seqlens, read_index, scale, rope_base);
  if (rope_base == 0) return AttentionFunction::apply(q, k, v, cu_seqlens, read_index, scale);
  const auto [turned_q, turned_k] = rotated(rope, q, k, *packing, rope_base);
  return AttentionFunction::apply(turned_q, turned_k, v, cu_seqlens, read_index, scale);
}

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, Tensor? read_index=None, float scale=1.0, "
      "float rope_base=0.0) -> Tensor");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("attention", attention_cpu);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("attention", attention_autograd_cpu);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("attention", attention_aten);
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens,
                 const Optional& read_index, double scale, double rope_base) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("oryx::attention", "").typed<decltype(attention)>();
  return op.call(q, k, v, cu_seqlens, read_index, scale, rope_base);
}

}  // namespace oryx::ops
