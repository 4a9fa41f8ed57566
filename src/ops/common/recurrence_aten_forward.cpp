#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/common/batched_products.h"
#include "ops/common/recurrence_aten.h"

namespace oryx::ops {
using at::Tensor;

RecurrenceResult recurrence_aten_forward(const RecurrenceChunks& x, const Tensor& v,
                                         const std::optional<Tensor>& initial_state, RecurrenceSaved& saved) {
  const ChunkList& list = x.list;
  const int64_t B = list.sequences(), Z = x.Z, C = x.C, Kd = x.Kd, Vd = x.Vd;
  const Tensor products = product(x.rows, x.k.transpose(1, 2));
  const Tensor keys = x.scaled(x.k, x.w, x.f);
  saved.values = x.empty({Z, (x.delta ? C : 0) + Kd + C, Vd});
  Tensor y = saved.y(x), y_from_zero = y;
  x.cut_keys(v, x.delta ? saved.values.narrow(1, 0, C) : y);
  if (x.delta) {
    saved.TW = x.empty({Z, C, C + Kd});
    Tensor T = saved.T(x), W = saved.minus_W(x);
    x.inverse(T, x.key_part(products));
    at::bmm_out(W, T, x.scaled(x.k, x.e, std::nullopt, -1));
    y_from_zero = at::bmm(T, saved.values.narrow(1, 0, C));
  }

  const Tensor all = at::empty({B + list.count(), x.Hkv, Kd, Vd}, x.w.options());
  if (initial_state)
    all.slice(0, 0, B).copy_(list.sorted(*initial_state));
  else
    all.slice(0, 0, B).zero_();
  product_into(all.slice(0, B).view({Z, Kd, Vd}), keys.transpose(1, 2), y_from_zero);
  x.pass_states(x.transitions(x.delta ? saved.minus_W(x) : keys, keys, false), all, saved.state(x), !initial_state);
  if (x.delta) at::bmm_out(y, saved.TW, saved.values.narrow(1, 0, C + Kd));  // T v - W S
  const Tensor reads = x.empty({Z, x.group * C, Kd + C});                    // e Q, and Q K^T o D w
  x.scale_rows(reads.narrow(2, 0, Kd), x.q, x.e);
  x.decay_scores(reads.narrow(2, Kd, C), x.query_part(products), true, x.group * C);
  const Tensor o = at::bmm(reads, saved.values.narrow(1, x.delta ? C : 0, Kd + C));
  return {x.join_rows(o), list.finals(all).clone()};
}

}  // namespace oryx::ops
