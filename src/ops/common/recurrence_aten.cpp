#include "ops/common/recurrence_aten.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "ops/common/batched_products.h"
#include "ops/common/packing.h"
#include "ops/common/tensors.h"

namespace oryx::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Per token, a chunk costs its length in attention-like matrices and Kd Vd / length in states: they balance at the
// head dim. Short sequences take the smallest power of two that holds them.
int64_t chunk_size(const Packing& packing, int64_t Kd, int64_t Vd) {
  int64_t longest = 1, size = 16;
  for (int64_t b = 0; b < packing.sequences(); ++b)
    longest = std::max(longest, packing.tokens[b + 1] - packing.tokens[b]);
  const int64_t most = Kd * Vd > 64 * 96 ? 128 : 64;
  while (size < most && size < longest) size *= 2;
  return size;
}

ChunkList make_list(const Packing& packing, const RecurrenceInputs& in) {
  return ChunkList::of(packing, chunk_size(packing, in.k.size(2), in.v.size(2)), in.q.device());
}

struct RecurrenceAtenFunction : torch::autograd::Function<RecurrenceAtenFunction> {
  static variable_list forward(AutogradContext* ctx, int64_t kind_address, const Tensor& q, const Tensor& k,
                               const Tensor& v, const Tensor& g, const Tensor& w,
                               const std::optional<Tensor>& initial_state, const Tensor& cu_seqlens,
                               const std::optional<Tensor>& read_index) {
    const auto& kind = *reinterpret_cast<const RecurrenceKind*>(kind_address);
    RecurrenceSaved saved;
    const RecurrenceChunks x(kind, {q, k, v, g, w, cu_seqlens, initial_state, read_index});
    const auto [o, final_state] = recurrence_aten_forward(x, v, initial_state, saved);
    ctx->saved_data["kind"] = kind_address;
    ctx->save_for_backward(
        {q, k, v, g, w, cu_seqlens, or_undefined(initial_state), or_undefined(read_index), saved.values, saved.TW});
    return {o, final_state};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& kind = *reinterpret_cast<const RecurrenceKind*>(ctx->saved_data["kind"].toInt());
    refuse_double_backward(kind.op);
    const auto s = ctx->get_saved_variables();
    const auto optional = [](const Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; };
    const RecurrenceChunks x(kind, {s[0], s[1], s[2], s[3], s[4], s[5], optional(s[6]), optional(s[7])});
    const RecurrenceSaved saved{s[8], s[9]};
    auto out = recurrence_aten_backward(x, saved, grads[0], grads[1]);
    return {Tensor(),
            out[0],
            out[1],
            out[2],
            out[3].to(s[3].scalar_type()),
            out[4].to(s[4].scalar_type()),
            s[6].defined() ? out[5] : Tensor(),
            Tensor(),
            Tensor()};
  }
};

}  // namespace

RecurrenceChunks::RecurrenceChunks(const RecurrenceKind& kind, const RecurrenceInputs& in)
    : delta(kind.delta),
      fused(can_fuse(in.q, in.k.size(2))),
      H(in.q.size(1)),
      Hkv(in.k.size(1)),
      Kd(in.k.size(2)),
      Vd(in.v.size(2)),
      group(H / Hkv),
      readers(group + (delta ? 1 : 0)),
      type(in.q.scalar_type()),
      acc(accumulate_type(type)),
      packing(shared_packing(kind.op, in.cu_seqlens, in.read_index, in.k.size(0))),
      list(make_list(*packing, in)),
      read(in.read_index ? std::optional(packing->read_on(in.q.device())) : std::nullopt) {
  Z = list.count() * Hkv, C = list.size();
  if (fused && read) row_of_token = packing->row_of_token_on(in.q.device());
  rows = at::empty({Z, readers * C, Kd}, in.q.options());
  q = query_part(rows), k = delta ? key_part(rows) : at::empty({Z, C, Kd}, in.q.options());
  cut_rows(in.q, q);
  cut_keys(in.k, k);
  w = at::empty({Z, C, 1}, in.q.options().dtype(acc));
  cut_keys(in.w.unsqueeze(-1), w);
  // Sums in double, since differences of large ones would lose the small ones; beside bfloat16, float will do. At the
  // clamp exp is zero in the accumulation type.
  const bool low = type == at::kBFloat16 && !fused;
  const Tensor g = at::empty({Z, C, 1}, in.q.options().dtype(low ? at::kFloat : at::kDouble));
  cut_keys(in.g.unsqueeze(-1), g);
  G = g.clamp_min(low ? -104.0 : -1000.0).cumsum(1);
  if (!fused) {
    D = G.sub(G.transpose(1, 2)).exp_().to(acc).tril_();
    Dw = D.mul(w.transpose(1, 2));
  }
  e = G.exp().to(acc), f = G.slice(1, C - 1).sub(G).exp_().to(acc), last = e.slice(1, C - 1);
}

Tensor RecurrenceChunks::empty(at::IntArrayRef sizes) const {
  return at::empty(sizes, rows.options());
}

RecurrenceResult recurrence_aten(const RecurrenceKind& kind, const RecurrenceInputs& in) {
  check_recurrence(kind, in);
  const c10::DeviceGuard guard(in.q.device());
#ifdef ORYX_CUDA
  if (can_use_tiles(kind, in)) return recurrence_tiles(kind, in);
#endif
  if (wants_graph(in.q, in.k, in.v, in.g, in.w, or_undefined(in.initial_state))) {
    auto out = RecurrenceAtenFunction::apply(reinterpret_cast<int64_t>(&kind), in.q, in.k, in.v, in.g, in.w,
                                             in.initial_state, in.cu_seqlens, in.read_index);
    return {out[0], out[1]};
  }
  const c10::NoGradGuard no_grad;
  RecurrenceSaved saved;
  return recurrence_aten_forward(RecurrenceChunks(kind, in), in.v, in.initial_state, saved);
}

}  // namespace oryx::ops
