#include "ops/attention/op.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>

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

namespace autograd = torch::autograd;

// Contiguous inputs and the arguments that both passes take; refers to itself, so it stays where it is made.
struct Prepared {
  Tensor q, k, v;
  std::shared_ptr<const Packing> shared;
  const Packing& packing;

  Prepared(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in, std::shared_ptr<const Packing> packed)
      : q(q_in.contiguous()), k(k_in.contiguous()), v(v_in.contiguous()), shared(std::move(packed)), packing(*shared) {}
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

// {q, k, v} with q and k turned for their places.
std::vector<Tensor> turned(std::vector<Tensor> qkv, const Packing& packing, double rope_base) {
  if (rope_base != 0) std::tie(qkv[0], qkv[1]) = rotated(rope, qkv[0], qkv[1], packing, rope_base);
  return qkv;
}

// Of the attention of {q, k, v} = function(inputs).
class AttentionNode : public autograd::Node {
 public:
  AttentionNode(TensorFunction function, const std::vector<Tensor>& inputs, std::shared_ptr<const Packing> packing,
                double scale, double rope_base, const ForwardResult& result)
      : Node(autograd::collect_next_edges(inputs)),
        function_(std::move(function)),
        packing_(std::move(packing)),
        scale_(scale),
        rope_base_(rope_base) {
    for (const Tensor& x : inputs) inputs_.emplace_back(x, /*is_output=*/false);
    // The output is kept without its history, which is this node.
    for (const Tensor& x : {result.o.detach(), result.lse, result.residual}) results_.emplace_back(x, false);
  }

  autograd::variable_list apply(autograd::variable_list&& grads) override {
    refuse_double_backward("oryx::attention");
    if (!grads[0].defined()) return autograd::variable_list(inputs_.size());
    const Recomputed qkv([this](const auto& in) { return turned(function_(in), *packing_, rope_base_); }, *this,
                         inputs_);
    return qkv.gradients(gradients(qkv.outputs(), grads[0].contiguous()));
  }
  void release_variables() override {
    for (auto* saved : {&inputs_, &results_})
      for (auto& x : *saved) x.reset_data();
  }
  std::string name() const override { return "AttentionBackward"; }

 private:
  // Of q, k and v.
  std::vector<Tensor> gradients(const std::vector<Tensor>& qkv, const Tensor& grad_o) const {
    const Prepared in(qkv[0], qkv[1], qkv[2], packing_);
    const Tensor o = results_[0].unpack(), lse = results_[1].unpack(), residual = results_[2].unpack();
    const int64_t H = in.q.size(1);
    Tensor grad_q, grad_k, grad_v;
    if (qkv[0].requires_grad()) grad_q = at::empty(in.q.sizes(), lse.options());
    if (qkv[1].requires_grad()) grad_k = at::empty_like(in.k);
    if (qkv[2].requires_grad()) grad_v = at::empty_like(in.v);
    const Tensor delta = at::empty({in.q.size(0), H}, lse.options());
    const AttentionBackwardPlan plan(in.packing, H, in.k.size(1));
    std::vector<int32_t> turns(static_cast<size_t>(plan.turns));
    AttentionBackward args{};
    in.fill(args, scale_, 0);
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
    return {grad_q, grad_k, grad_v};
  }

  TensorFunction function_;
  std::shared_ptr<const Packing> packing_;
  double scale_, rope_base_;
  std::vector<autograd::SavedVariable> inputs_, results_;
};

Tensor with_history(TensorFunction function, const std::vector<Tensor>& inputs, const Tensor& cu_seqlens,
                    const Optional& read_index, double scale, double rope_base) {
  std::shared_ptr<const Packing> packing;
  ForwardResult result;
  {
    const c10::NoGradGuard no_grad;
    auto qkv = function(inputs);
    packing = check_attention(qkv[0], qkv[1], qkv[2], cu_seqlens, read_index, scale, rope_base);
    qkv = turned(std::move(qkv), *packing, rope_base);
    result = run_forward(Prepared(qkv[0], qkv[1], qkv[2], packing), scale, 0, /*keep=*/true);
  }
  autograd::set_history(
      result.o, std::make_shared<AttentionNode>(std::move(function), inputs, packing, scale, rope_base, result));
  return result.o;
}

Tensor attention_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens,
                     const Optional& read_index, double scale, double rope_base) {
  const auto packing = check_attention(q, k, v, cu_seqlens, read_index, scale, rope_base);
  const Prepared in(q, k, v, packing);
  if (rope_base == 0 || in.only_few_rows()) return run_forward(in, scale, rope_base, /*keep=*/false).o;
  const auto qkv = turned({q, k, v}, *packing, rope_base);
  return run_forward(Prepared(qkv[0], qkv[1], v, packing), scale, 0, /*keep=*/false).o;
}

Tensor attention_autograd_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens,
                              const Optional& read_index, double scale, double rope_base) {
  if (wants_graph(q, k, v))
    return with_history([](const auto& in) { return in; }, {q, k, v}, cu_seqlens, read_index, scale, rope_base);
  at::AutoDispatchBelowADInplaceOrView below;
  return attention_cpu(q, k, v, cu_seqlens, read_index, scale, rope_base);
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

Tensor attention_of(TensorFunction function, const std::vector<Tensor>& inputs, const Tensor& cu_seqlens,
                    const Optional& read_index, double scale, double rope_base) {
  if (autograd::compute_requires_grad(at::TensorList(inputs)) && inputs[0].is_cpu()) {
    RECORD_FUNCTION("oryx::attention", c10::ArrayRef<const c10::IValue>());  // as the dispatcher tells profilers
    return with_history(std::move(function), inputs, cu_seqlens, read_index, scale, rope_base);
  }
  const auto qkv = function(inputs);
  return attention(qkv[0], qkv[1], qkv[2], cu_seqlens, read_index, scale, rope_base);
}

}  // namespace oryx::ops
