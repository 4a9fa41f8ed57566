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

// (I + N)^-1, where Dw is D with column j times w_j.
Tensor inverse_of_system(const RecurrenceChunks& x, const Tensor& Dw) {
  Tensor N = empty_block_matrices(x.Z, x.C, x.w.options());
  at::mul_out(N, product(x.k, x.k.transpose(1, 2)), Dw);
  N.diagonal(0, 1, 2).zero_();
  return unit_lower_inverse(N);
}

// A = e_C - (w f K)^T W
Tensor transitions(const RecurrenceChunks& x, const Tensor& keys, const Tensor& W) {
  Tensor A = product(keys.transpose(1, 2), W).neg_();
  A.diagonal(0, 1, 2).add_(x.last.squeeze(2));
  return A;
}

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

RecurrenceResult recurrence_aten_forward(const RecurrenceChunks& x, const std::optional<at::Tensor>& initial_state,
                                         RecurrenceSaved* saved) {
  const ChunkList& list = x.list;
  const int64_t B = list.sequences();
  const auto options = x.w.options();
  const Tensor all = at::empty({B + list.count(), x.Hkv, x.Kd, x.Vd}, options);
  if (initial_state)
    all.slice(0, 0, B).copy_(list.sorted(*initial_state));
  else
    all.slice(0, 0, B).zero_();
  const Tensor states = all.view({-1, x.Kd, x.Vd}), B_rows = states.slice(0, B * x.Hkv);

  const Tensor Dw = x.D.mul(x.w.transpose(1, 2)), keys = scaled(x.k, x.w.mul(x.f), x.type);
  Tensor W, T, Y, y = x.v, A = x.last;
  if (x.delta) {
    T = inverse_of_system(x, Dw).to(x.type);
    W = at::bmm(T, scaled(x.k, x.e, x.type));
    Y = product(T, x.v);
    y = Y.to(x.type);
    A = transitions(x, keys, W);
  }
  product_into(B_rows, keys.transpose(1, 2), y);
  pass_states(x, A, states, !initial_state);

  const Tensor kept = all.to(x.type), S = x.batches(list.begins(kept));
  if (x.delta) {
    add_product(Y, W, S, -1);
    y = Y.to(x.type);
  }
  Tensor o = product(x.scaled_rows(x.q, x.e), S);
  add_product(o, x.scaled_rows(product(x.q, x.k.transpose(1, 2)), Dw), y);
  if (saved) *saved = {kept, y, W, T};
  return {x.join_rows(o), list.finals(all).contiguous()};
}

}  // namespace oryx::ops
