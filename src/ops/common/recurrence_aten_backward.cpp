#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/common/batched_products.h"
#include "ops/common/recurrence_aten.h"

namespace oryx::ops {
using at::Tensor;

std::vector<Tensor> recurrence_aten_backward(const RecurrenceChunks& x, const RecurrenceSaved& saved,
                                             const Tensor& grad_o, const Tensor& grad_final) {
  const ChunkList& list = x.list;
  const int64_t B = list.sequences(), Z = x.Z, C = x.C, n = x.readers * C;
  const Tensor S = saved.state(x), y = saved.y(x), keys = x.scaled(x.k, x.w, x.f);

  // What the readers' rows get: dO, and minus the gradient of V - e K S; and that times e.
  const Tensor d = x.empty({Z, n, x.Vd}), ed = x.empty({Z, n, x.Vd});
  const Tensor dO = x.query_part(d), edO = x.query_part(ed);
  if (grad_o.defined())
    x.cut_rows(grad_o, dO);
  else
    dO.zero_();
  x.scale_rows(edO, dO, x.e);
  const Tensor products = x.empty({Z, n, C});  // Q K^T o D, and M = K K^T o D, j < i
  x.decay_scores(products, product(x.rows, x.k.transpose(1, 2)), false, x.group * C);

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
  if (x.delta) add_product(own, saved.minus_W(x).transpose(1, 2), x.scaled(H, x.w));
  x.pass_gradients(x.transitions(x.delta ? saved.minus_W(x) : keys, keys, true), grads);
  const Tensor end = list.end_grads(all).reshape({Z, x.Kd, x.Vd}), dS = end.to(x.type);
  add_product(H, x.scaled(x.k, x.f), dS);

  Tensor dV;
  if (x.delta) {
    Tensor minus_dV = x.key_part(d);
    at::bmm_out(minus_dV, saved.T(x).transpose(1, 2), x.scaled(H, x.w, std::nullopt, -1));
    x.scale_rows(x.key_part(ed), minus_dV, x.e);
    add_product(H, x.key_part(products).transpose(1, 2), minus_dV);
    dV = x.join_keys(minus_dV, x.type, -1);
  } else {
    dV = x.join_keys(x.scaled(H, x.w), x.type);
  }
  const Tensor dw = x.row_sums(y, H);

  // Where reader and writer are one token, G does not count, and beside strong decay nothing else is left: to more than
  // bfloat16's digits, the diagonal of dB is set apart.
  const Tensor dy = product(d, y.transpose(1, 2)), dB = x.empty({Z, n, C});
  x.decay_scores(dB, dy, true, x.group * C);
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
  const Tensor inside = x.row_sums(x.k, dK);
  const Tensor dG = x.by_head(x.row_sums(x.rows, reading)).sum(1).sub_(inside);
  add_product(dK, x.scaled(y, x.w, x.f), dS.transpose(1, 2));
  const Tensor passed = x.row_sums(x.k, dK).sub_(inside).slice(1, 0, C - 1).cumsum(1);
  const Tensor dg = dG.sum(1, /*keepdim=*/true).sub(dG.cumsum(1)).add_(dG);
  dg.slice(1, 1).add_(passed);
  dg.add_(x.last.mul(x.row_sums(S, end).sum(1, /*keepdim=*/true)));

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
