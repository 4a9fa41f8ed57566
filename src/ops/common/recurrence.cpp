#include "ops/common/recurrence.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/common/packing.h"

namespace oryx::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Storage storage_of(at::ScalarType type) {
  return type == at::kDouble ? Storage::f64 : type == at::kBFloat16 ? Storage::bf16 : Storage::f32;
}

// Contiguous tensors in the types the kernels take, and the pointers to them.
struct Prepared {
  at::Tensor q, k, v, g, w, initial;
  Packing packing;
  std::vector<int64_t> chunks{0};

  Prepared(const RecurrenceKind& kind, const RecurrenceInputs& in)
      : q(in.q.contiguous()),
        k(in.k.contiguous()),
        v(in.v.contiguous()),
        packing(make_packing(kind.op, in.cu_seqlens, in.read_index, in.k.size(0))) {
    const auto acc = accumulate_type(q.scalar_type());
    g = in.g.to(acc).contiguous();
    w = in.w.to(acc).contiguous();
    if (in.initial_state) initial = in.initial_state->contiguous();
    for (int64_t b = 0; b < packing.sequences(); ++b)
      chunks.push_back(chunks.back() + (packing.tokens[b + 1] - packing.tokens[b] + kChunk - 1) / kChunk);
  }

  void fill(RecurrenceArgs& args) const {
    args.storage = storage_of(q.scalar_type());
    args.sequences = packing.sequences();
    args.heads = q.size(1), args.kv_heads = k.size(1), args.key_dim = k.size(2), args.value_dim = v.size(2);
    args.tokens = packing.tokens.data(), args.rows = packing.rows.data();
    args.read = packing.read.empty() ? nullptr : packing.read.data();
    args.chunks = chunks.data();
    args.q = q.const_data_ptr(), args.k = k.const_data_ptr(), args.v = v.const_data_ptr();
    args.g = g.const_data_ptr(), args.w = w.const_data_ptr();
    args.initial = initial.defined() ? initial.const_data_ptr() : nullptr;
  }
};

struct ForwardOutputs {
  at::Tensor o, final_state, chunk_states, updates;
};

ForwardOutputs run_forward(const RecurrenceKind& kind, const RecurrenceInputs& in, bool keep) {
  const Prepared p(kind, in);
  const int64_t H = p.q.size(1), Hkv = p.k.size(1), Kd = p.k.size(2), Vd = p.v.size(2);
  const auto acc = p.g.options();
  ForwardOutputs out;
  out.o = at::empty({p.packing.num_rows(), H, Vd}, p.q.options());
  out.final_state = at::empty({p.packing.sequences(), Hkv, Kd, Vd}, acc);
  RecurrenceForward args{};
  p.fill(args);
  if (keep) {
    out.chunk_states = at::empty({p.chunks.back(), Hkv, Kd, Vd}, acc);
    args.chunk_states = out.chunk_states.mutable_data_ptr();
    if (kind.delta) {
      out.updates = at::empty({p.packing.num_tokens(), Hkv, Vd}, acc);
      args.updates = out.updates.mutable_data_ptr();
    }
  }
  args.o = out.o.mutable_data_ptr();
  args.final_state = out.final_state.mutable_data_ptr();
  kind.forward(args);
  return out;
}

struct RecurrenceFunction : torch::autograd::Function<RecurrenceFunction> {
  static variable_list forward(AutogradContext* ctx, int64_t kind_address, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const at::Tensor& g, const at::Tensor& w,
                               const std::optional<at::Tensor>& initial_state, const at::Tensor& cu_seqlens,
                               const std::optional<at::Tensor>& read_index) {
    const auto& kind = *reinterpret_cast<const RecurrenceKind*>(kind_address);
    at::AutoDispatchBelowADInplaceOrView below;
    ForwardOutputs out = run_forward(kind, {q, k, v, g, w, cu_seqlens, initial_state, read_index}, /*keep=*/true);
    ctx->saved_data["kind"] = kind_address;
    ctx->save_for_backward({q, k, v, g, w, cu_seqlens, initial_state.value_or(at::Tensor()),
                            read_index.value_or(at::Tensor()), out.chunk_states, out.updates});
    return {out.o, out.final_state};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& kind = *reinterpret_cast<const RecurrenceKind*>(ctx->saved_data["kind"].toInt());
    TORCH_CHECK(!at::GradMode::is_enabled(), kind.op, ": second derivatives are not available");
    const auto saved = ctx->get_saved_variables();
    const auto optional = [](const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; };
    const RecurrenceInputs in{saved[0], saved[1], saved[2],           saved[3],
                              saved[4], saved[5], optional(saved[6]), optional(saved[7])};
    const Prepared p(kind, in);
    RecurrenceBackward args{};
    p.fill(args);
    args.chunk_states = saved[8].mutable_data_ptr();
    if (kind.delta) args.updates = saved[9].mutable_data_ptr();
    const at::Tensor grad_o = grads[0].defined()
                                  ? grads[0].contiguous()
                                  : at::zeros({p.packing.num_rows(), args.heads, args.value_dim}, p.q.options());
    const at::Tensor grad_final = grads[1].defined() ? grads[1].contiguous() : at::Tensor();
    args.grad_o = grad_o.const_data_ptr();
    args.grad_final = grad_final.defined() ? grad_final.const_data_ptr() : nullptr;
    at::Tensor grad_q = at::empty_like(p.q), grad_k = at::empty_like(p.k), grad_v = at::empty_like(p.v);
    at::Tensor grad_g = at::empty_like(p.g), grad_w = at::empty_like(p.w);
    at::Tensor grad_initial = at::empty({args.sequences, args.kv_heads, args.key_dim, args.value_dim}, p.g.options());
    args.grad_q = grad_q.mutable_data_ptr(), args.grad_k = grad_k.mutable_data_ptr();
    args.grad_v = grad_v.mutable_data_ptr(), args.grad_g = grad_g.mutable_data_ptr();
    args.grad_w = grad_w.mutable_data_ptr(), args.grad_initial = grad_initial.mutable_data_ptr();
    kind.backward(args);
    return {at::Tensor(),
            grad_q,
            grad_k,
            grad_v,
            grad_g.to(in.g.scalar_type()),
            grad_w.to(in.w.scalar_type()),
            in.initial_state ? grad_initial : at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

void check_recurrence(const RecurrenceKind& kind, const RecurrenceInputs& in) {
  const char* op = kind.op;
  check_float(op, "q", in.q);
  check_shape(op, "k", in.k, {-1, -1, -1});
  check_shape(op, "q", in.q, {in.read_index ? in.read_index->numel() : in.k.size(0), -1, in.k.size(2)});
  const int64_t N = in.k.size(0), Hkv = in.k.size(1), Kd = in.k.size(2);
  TORCH_CHECK(Hkv > 0 && in.q.size(1) > 0 && in.q.size(1) % Hkv == 0, op, ": q must have a multiple of k's ", Hkv,
              " heads, but has ", in.q.size(1));
  check_shape(op, "v", in.v, {N, Hkv, -1});
  TORCH_CHECK(Kd > 0 && in.v.size(2) > 0, op, ": k and v must have head dims of at least 1");
  check_like(op, "k", in.k, in.q);
  check_like(op, "v", in.v, in.q);
  const auto acc = accumulate_type(in.q.scalar_type());
  for (const auto& [name, x] : {std::pair{"g", in.g}, std::pair{kind.w, in.w}}) {
    check_shape(op, name, x, {N, Hkv});
    TORCH_CHECK(x.scalar_type() == acc || x.scalar_type() == in.q.scalar_type(), op, ": ", name, " must be ", acc,
                " or ", in.q.scalar_type(), ", but is ", x.scalar_type());
    TORCH_CHECK(x.device() == in.q.device(), op, ": ", name, " must be on ", in.q.device(), ", but is on ", x.device());
  }
  if (in.initial_state) {
    check_shape(op, "initial_state", *in.initial_state, {in.cu_seqlens.numel() - 1, Hkv, Kd, in.v.size(2)});
    TORCH_CHECK(in.initial_state->scalar_type() == acc, op, ": initial_state must be ", acc, ", but is ",
                in.initial_state->scalar_type());
    TORCH_CHECK(in.initial_state->device() == in.q.device(), op, ": initial_state must be on ", in.q.device(),
                ", but is on ", in.initial_state->device());
  }
}

RecurrenceResult recurrence_cpu(const RecurrenceKind& kind, const RecurrenceInputs& in) {
  check_recurrence(kind, in);
  ForwardOutputs out = run_forward(kind, in, /*keep=*/false);
  return {out.o, out.final_state};
}

RecurrenceResult recurrence_autograd_cpu(const RecurrenceKind& kind, const RecurrenceInputs& in) {
  check_recurrence(kind, in);
  const auto wants = [](const at::Tensor& x) { return x.requires_grad(); };
  const bool any = wants(in.q) || wants(in.k) || wants(in.v) || wants(in.g) || wants(in.w) ||
                   (in.initial_state && wants(*in.initial_state));
  if (!at::GradMode::is_enabled() || !any) {
    at::AutoDispatchBelowADInplaceOrView below;
    return recurrence_cpu(kind, in);
  }
  auto out = RecurrenceFunction::apply(reinterpret_cast<int64_t>(&kind), in.q, in.k, in.v, in.g, in.w, in.initial_state,
                                       in.cu_seqlens, in.read_index);
  return {out[0], out[1]};
}

}  // namespace oryx::ops
