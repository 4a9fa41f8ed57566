#include <ATen/ops/addcmul.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/common/batched_products.h"
#include "ops/common/recurrence_aten.h"

namespace oryx::ops {
namespace {

using at::Tensor;

// Rows of `grads` [chunks + B, Kd, Vd] hold what a chunk's own outputs give its first state, and then the gradients of
// the sequences' last states: makes each chunk's the whole gradient of its first state, dS = A dS' + own, where A is
// transposed already.
void pass_gradients(const RecurrenceChunks& x, const Tensor& A, const Tensor& grads) {
  const ChunkList& list = x.list;
  const auto step_back = [&](int64_t chunk, int64_t from, int64_t n) {
    if (n == 0) return;
    const Tensor a = A.narrow(0, chunk * x.Hkv, n * x.Hkv), after = grads.narrow(0, from * x.Hkv, n * x.Hkv);
    Tensor before = grads.narrow(0, chunk * x.Hkv, n * x.Hkv);
    if (x.delta)
      at::baddbmm_out(before, before, a, after);
    else
      at::addcmul_out(before, before, a, after);
  };
  for (int64_t step = list.steps() - 1; step >= 0; --step) {
    const int64_t first = list.first(step), n = list.count(step), go_on = list.next_count(step);
    if (step + 1 < list.steps()) step_back(first, list.first(step + 1), go_on);
    step_back(first + go_on, list.count() + go_on, n - go_on);  // sequences that end here
  }
}

Tensor row_sums(const Tensor& a, const Tensor& b) {
  return a.mul(b).sum(-1, /*keepdim=*/true);
}

}  // namespace

std::vector<Tensor> recurrence_aten_backward(const RecurrenceChunks& x, const RecurrenceSaved& saved,
                                             const Tensor& grad_o, const Tensor& grad_final) {
  const ChunkList& list = x.list;
  const int64_t B = list.sequences(), Z = x.Z, C = x.C, n = x.readers * C;
  const Tensor S = saved.state(x), y = saved.y(x), keys = scaled(x.k, x.w.mul(x.f), x.type);
  const Tensor Dw = x.D.mul(x.w.transpose(1, 2));

  // What the readers' rows get: dO, and minus the gradient of V - e K S; and that times e.
  const Tensor d = x.empty({Z, n, x.Vd}), ed = x.empty({Z, n, x.Vd});
  const Tensor dO = x.query_part(d), edO = x.query_part(ed);
  if (grad_o.defined())
    x.cut_rows(grad_o, dO);
  else
    dO.zero_();
  x.scale_rows(edO, dO, x.e);
  const Tensor products = x.empty({Z, n, C});  // Q K^T o D, and M = K K^T o D, j < i
  x.scale_rows(products, product(x.rows, x.k.transpose(1, 2)), x.D);

  // dy = w H with H = (Q K^T o D)^T dO + f K dS'; the first term decides what the chunk gives its first state.
  Tensor H = product(x.query_part(products).transpose(1, 2), dO);
  const Tensor all = at::empty({list.count() + B, x.Hkv, x.Kd, x.Vd}, x.w.options());
  if (grad_final.defined())
    all.slice(0, list.count()).copy_(list.sorted(grad_final));
  else
    all.slice(0, list.count()).zero_();
  const Tensor grads = all.view({(list.count() + B) * x.Hkv, x.Kd, x.Vd});
  Tensor own = grads.slice(0, 0, Z);
  product_into(own, x.q.transpose(1, 2), edO);
  if (x.delta) add_product(own, saved.minus_W(x).transpose(1, 2), scaled(H, x.w, x.type));
  pass_gradients(x, transitions(x, saved, keys, true), grads);
  const Tensor end = list.end_grads(all).reshape({Z, x.Kd, x.Vd}), dS = end.to(x.type);
  add_product(H, scaled(x.k, x.f, x.type), dS);

  Tensor dV;
  if (x.delta) {
    Tensor minus_dV = x.key_part(d);
    at::bmm_out(minus_dV, saved.T(x).transpose(1, 2), scaled(H, x.w.neg(), x.type));
    x.scale_rows(x.key_part(ed), minus_dV, x.e);
    const Tensor M = x.key_part(products);
    M.diagonal(0, 1, 2).zero_();
    add_product(H, M.transpose(1, 2), minus_dV);
    dV = x.join_keys(minus_dV, x.type).neg_();
  } else {
    dV = x.join_keys(scaled(H, x.w, x.type), x.type);
  }
  const Tensor dw = row_sums(y, H);

  // Where reader and writer are one token, G does not count, and beside strong decay nothing else is left: to more than
  // bfloat16's digits, the diagonal of dB is set apart.
  const Tensor dy = product(d, y.transpose(1, 2)), dB = x.empty({Z, n, C});
  x.scale_rows(dB, dy, Dw);
  if (x.delta) x.key_part(dB).diagonal(0, 1, 2).zero_();
  const bool apart = x.type != at::kBFloat16;
  Tensor self;  // [Z, group, C, 1]
  if (apart) {
    self = x.by_head(x.query_part(dy)).diagonal(0, 2, 3).unsqueeze(-1).mul(x.w.unsqueeze(1));
    x.by_head(x.query_part(dB)).diagonal(0, 2, 3).zero_();
  }
  Tensor reading = product(ed, S.transpose(1, 2)), dK = product(dB.transpose(1, 2), x.rows);
  add_product(reading, dB, x.k);

  // exp(G) goes with every reader's row and exp(-G) with every writer's, so that G's gradient is the difference of
  // their products with what they multiply; g's is the sum of those that follow. What enters the last state goes with
  // exp(G_C - G), the sum of the g that follow: a sum over what came before, without the token itself.
  const Tensor inside = row_sums(x.k, dK);
  const Tensor dG = x.by_head(row_sums(x.rows, reading)).sum(1).sub_(inside);
  add_product(dK, scaled(y, x.w.mul(x.f), x.type), dS.transpose(1, 2));
  const Tensor passed = row_sums(x.k, dK).sub_(inside).slice(1, 0, C - 1).cumsum(1);
  const Tensor dg = dG.sum(1, /*keepdim=*/true).sub(dG.cumsum(1)).add_(dG);
  dg.slice(1, 1).add_(passed);
  dg.add_(x.last.mul(end.mul(S).sum({1, 2}, /*keepdim=*/true)));

  const Tensor dQ = x.query_part(reading);
  if (apart) {
    x.by_head(dQ).addcmul_(self, x.k.unsqueeze(1));
    dK.add_(x.by_head(x.q).mul(self).sum(1));
  }
  if (x.delta) dK.add_(x.key_part(reading));
  return {x.join_rows(dQ),
          x.join_keys(dK, x.type),
          dV,
          x.join_keys(dg, x.acc).squeeze(-1),
          x.join_keys(dw, x.acc).squeeze(-1),
          list.initial_grads(all).contiguous()};
}

}  // namespace oryx::ops
