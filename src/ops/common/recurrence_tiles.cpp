#ifdef ORYX_CUDA
#include "ops/common/recurrence_tiles.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/common/chunk_list.h"
#include "ops/common/recurrence.h"
#include "ops/common/tensors.h"

namespace oryx::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What the backward pass needs again: inputs as the kernels read them, and what the forward pass has filled.
struct Saved {
  Tensor q, k, v, g, w, gates, W, y, T, before;
  variable_list list() const { return {q, k, v, g, w, gates, W, y, T, before}; }
  explicit Saved(const variable_list& x)
      : q(x[0]), k(x[1]), v(x[2]), g(x[3]), w(x[4]), gates(x[5]), W(x[6]), y(x[7]), T(x[8]), before(x[9]) {}
  Saved() = default;
};

Tensor packed(const Tensor& x) {
  const Tensor rows = x.contiguous();
  return reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % 16 == 0 ? rows : rows.clone();
}

// Arguments of the kernels, and the tensors that they point into.
struct Call {
  std::shared_ptr<const Packing> packing;
  ChunkList list;
  Tensor row_of_token;
  cuda::Recurrence args{};

  Call(const RecurrenceKind& kind, const Tensor& cu_seqlens, const std::optional<Tensor>& read_index, const Saved& s)
      : packing(shared_packing(kind.op, cu_seqlens, read_index, s.k.size(0))),
        list(ChunkList::of(*packing, cuda::kTile, s.q.device())) {
    if (read_index) row_of_token = packing->row_of_token_on(s.q.device());
    args.delta = kind.delta;
    args.placement = list.placement();
    args.first = pointer<int64_t>(list.uneven_firsts()), args.order = pointer<int64_t>(list.order());
    args.row_of_token = pointer<int64_t>(row_of_token);
    args.steps = list.steps(), args.chunks = list.count();
    args.heads = static_cast<int>(s.k.size(1)), args.group = static_cast<int>(s.q.size(1) / s.k.size(1));
    args.dim = static_cast<int>(s.k.size(2));
    args.q = pointer<Bf16>(s.q), args.k = pointer<Bf16>(s.k), args.v = pointer<Bf16>(s.v);
    args.g = pointer<float>(s.g), args.w = pointer<float>(s.w);
  }
  void point_at(const Saved& s) {
    args.gates = mutable_pointer<float>(s.gates);
    args.W = mutable_pointer<Bf16>(s.W), args.y = mutable_pointer<Bf16>(s.y), args.T = mutable_pointer<Bf16>(s.T);
    args.before = mutable_pointer<Bf16>(s.before);
  }
};

RecurrenceResult forward(const RecurrenceKind& kind, const RecurrenceInputs& in, Saved& s) {
  s.q = packed(in.q), s.k = packed(in.k), s.v = packed(in.v);
  s.g = in.g.to(at::kFloat).contiguous(), s.w = in.w.to(at::kFloat).contiguous();
  Call call(kind, in.cu_seqlens, in.read_index, s);
  const int64_t Z = call.args.chunks * call.args.heads, dim = call.args.dim;
  s.gates = at::empty({Z, 4, cuda::kTile}, s.g.options());
  s.before = at::empty({Z, dim, dim}, s.q.options());
  if (kind.delta) {
    s.W = at::empty({Z, cuda::kTile, dim}, s.q.options());
    s.y = at::empty({Z, cuda::kTile, dim}, s.q.options());
    s.T = at::empty({Z, cuda::kTile, cuda::kTile}, s.q.options());
  }
  call.point_at(s);
  const Tensor initial = contiguous_or_undefined(or_undefined(in.initial_state));
  call.args.initial = pointer<float>(initial);
  const Tensor o = at::empty_like(s.q);
  const Tensor final_state = at::empty({call.list.sequences(), call.args.heads, dim, dim}, s.g.options());
  cuda::recurrence_tiles_forward(call.args, {mutable_pointer<Bf16>(o), mutable_pointer<float>(final_state)});
  return {o, final_state};
}

struct RecurrenceTilesFunction : torch::autograd::Function<RecurrenceTilesFunction> {
  static variable_list forward(AutogradContext* ctx, int64_t kind_address, const Tensor& q, const Tensor& k,
                               const Tensor& v, const Tensor& g, const Tensor& w,
                               const std::optional<Tensor>& initial_state, const Tensor& cu_seqlens,
                               const std::optional<Tensor>& read_index) {
    const auto& kind = *reinterpret_cast<const RecurrenceKind*>(kind_address);
    Saved saved;
    const auto [o, final_state] = ops::forward(kind, {q, k, v, g, w, cu_seqlens, initial_state, read_index}, saved);
    ctx->saved_data["kind"] = kind_address;
    ctx->saved_data["state"] = initial_state.has_value();
    ctx->saved_data["g"] = static_cast<int64_t>(g.scalar_type());
    ctx->saved_data["w"] = static_cast<int64_t>(w.scalar_type());
    variable_list list = saved.list();
    list.push_back(cu_seqlens);
    list.push_back(or_undefined(read_index));
    ctx->save_for_backward(std::move(list));
    return {o, final_state};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& kind = *reinterpret_cast<const RecurrenceKind*>(ctx->saved_data["kind"].toInt());
    refuse_double_backward(kind.op);
    const variable_list list = ctx->get_saved_variables();
    const Saved s(list);
    Call call(kind, list[10], list[11].defined() ? std::optional(list[11]) : std::nullopt, s);
    call.point_at(s);
    const Tensor grad_o = grads[0].defined() ? packed(grads[0]) : at::zeros(s.q.sizes(), s.q.options());
    const Tensor grad_final = contiguous_or_undefined(grads[1]);
    const Tensor H = kind.delta ? at::empty_like(s.y) : Tensor(), end = at::empty_like(s.before);
    const Tensor dq = at::empty_like(s.q), dk = at::empty_like(s.k), dv = at::empty_like(s.v);
    const Tensor dg = at::empty_like(s.g), dw = at::empty_like(s.w);
    Tensor d_initial;
    if (ctx->saved_data["state"].toBool())
      d_initial = at::empty({call.list.sequences(), call.args.heads, call.args.dim, call.args.dim}, s.g.options());
    cuda::recurrence_tiles_backward(
        call.args,
        {pointer<Bf16>(grad_o), pointer<float>(grad_final), mutable_pointer<Bf16>(H), mutable_pointer<Bf16>(end),
         mutable_pointer<Bf16>(dq), mutable_pointer<Bf16>(dk), mutable_pointer<Bf16>(dv), mutable_pointer<float>(dg),
         mutable_pointer<float>(dw), mutable_pointer<float>(d_initial)});
    const auto type = [&](const char* name) { return static_cast<at::ScalarType>(ctx->saved_data[name].toInt()); };
    return {Tensor(), dq, dk, dv, dg.to(type("g")), dw.to(type("w")), d_initial, Tensor(), Tensor()};
  }
};

}  // namespace

bool can_use_tiles(const RecurrenceKind& kind, const RecurrenceInputs& in) {
  if (!in.q.is_cuda() || in.q.scalar_type() != at::kBFloat16) return false;
  return cuda::can_use_tiles(kind.delta, in.q.size(1) / in.k.size(1), in.k.size(2), in.v.size(2));
}

RecurrenceResult recurrence_tiles(const RecurrenceKind& kind, const RecurrenceInputs& in) {
  if (wants_graph(in.q, in.k, in.v, in.g, in.w, or_undefined(in.initial_state))) {
    auto out = RecurrenceTilesFunction::apply(reinterpret_cast<int64_t>(&kind), in.q, in.k, in.v, in.g, in.w,
                                              in.initial_state, in.cu_seqlens, in.read_index);
    return {out[0], out[1]};
  }
  const c10::NoGradGuard no_grad;
  Saved saved;
  return forward(kind, in, saved);
}

}  // namespace oryx::ops
#endif
