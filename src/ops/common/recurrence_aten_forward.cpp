#include <ATen/ops/addcmul.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include "ops/common/batched_products.h"
#include "ops/common/recurrence_aten.h"
#include "ops/common/unit_lower_inverse.h"

namespace oryx::ops {
namespace {

using at::Tensor;

// Turns B in each chunk's row of `states` into its last state, S' = A S + B; A is a number for ssd.
void pass_states(const RecurrenceChunks& x, const Tensor& A, const Tensor& states, bool from_zero) {
  const ChunkList& list = x.list;
  for (int64_t step = from_zero ? 1 : 0; step < list.steps(); ++step) {
    const int64_t begin = list.first(step) * x.Hkv, n = list.count(step) * x.Hkv, B = list.sequences() * x.Hkv;
    const Tensor before = states.narrow(0, step == 0 ? 0 : B + list.first(step - 1) * x.Hkv, n);
    Tensor after = states.narrow(0, B + begin, n);
    if (x.delta)
      at::baddbmm_out(after, after, A.narrow(0, begin, n), before);
    else
      at::addcmul_out(after, after, A.narrow(0, begin, n), before);
  }
}

}  // namespace

Tensor transitions(const RecurrenceChunks& x, const RecurrenceSaved& saved, const Tensor& keys, bool transposed) {
  if (!x.delta) return x.last;
  const Tensor W = saved.minus_W(x);
  Tensor A = transposed ? product(W.transpose(1, 2), keys) : product(keys.transpose(1, 2), W);
  A.diagonal(0, 1, 2).add_(x.last.squeeze(2));
  return A;
}

RecurrenceResult recurrence_aten_forward(const RecurrenceChunks& x, const Tensor& v,
                                         const std::optional<Tensor>& initial_state, RecurrenceSaved& saved) {
  const ChunkList& list = x.list;
  const int64_t B = list.sequences(), Z = x.Z, C = x.C, Kd = x.Kd, Vd = x.Vd;
  const Tensor products = product(x.rows, x.k.transpose(1, 2));
  const Tensor Dw = x.D.mul(x.w.transpose(1, 2)), keys = scaled(x.k, x.w.mul(x.f), x.type);
  saved.values = x.empty({Z, (x.delta ? C : 0) + Kd + C, Vd});
  Tensor y = saved.y(x), y_from_zero = y;
  x.cut_keys(v, x.delta ? saved.values.narrow(1, 0, C) : y);
  if (x.delta) {
    Tensor N = empty_block_matrices(Z, C, x.w.options());
    at::mul_out(N, x.key_part(products), Dw);
    saved.TW = x.empty({Z, C, C + Kd});
    Tensor T = saved.T(x), W = saved.minus_W(x);
    T.copy_(unit_lower_inverse(N));
    at::bmm_out(W, T, scaled(x.k, x.e.neg(), x.type));
    y_from_zero = at::bmm(T, saved.values.narrow(1, 0, C));
  }

  const Tensor all = at::empty({B + list.count(), x.Hkv, Kd, Vd}, x.w.options());
  if (initial_state)
    all.slice(0, 0, B).copy_(list.sorted(*initial_state));
  else
    all.slice(0, 0, B).zero_();
  const Tensor states = all.view({(B + list.count()) * x.Hkv, Kd, Vd});
  product_into(states.slice(0, B * x.Hkv), keys.transpose(1, 2), y_from_zero);
  pass_states(x, transitions(x, saved, keys, false), states, !initial_state);

  saved.state(x).view({list.count(), x.Hkv, Kd, Vd}).copy_(list.begins(all));
  if (x.delta) at::bmm_out(y, saved.TW, saved.values.narrow(1, 0, C + Kd));  // T v - W S
  const Tensor reads = x.empty({Z, x.group * C, Kd + C});                    // e Q, and Q K^T o D w
  x.scale_rows(reads.narrow(2, 0, Kd), x.q, x.e);
  x.scale_rows(reads.narrow(2, Kd, C), x.query_part(products), Dw);
  const Tensor o = at::bmm(reads, saved.values.narrow(1, x.delta ? C : 0, Kd + C));
  return {x.join_rows(o), list.finals(all).clone()};
}

}  // namespace oryx::ops
