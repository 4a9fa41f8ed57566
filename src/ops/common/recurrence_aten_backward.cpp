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
// the sequences' last states: makes each chunk's the whole gradient of its first state, dS = A^T dS' + own.
void pass_gradients(const RecurrenceChunks& x, const Tensor& keys, const Tensor& W, const Tensor& grads) {
  const ChunkList& list = x.list;
  Tensor A = x.last;
  if (x.delta) {
    A = product(W.transpose(1, 2), keys).neg_();  // transposed
    A.diagonal(0, 1, 2).add_(x.last.squeeze(2));
  }
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
  const int64_t B = list.sequences();
  const auto acc = x.w.options();
  const auto heads = [&](const Tensor& y) { return y.view({x.Z, x.group, x.C, y.size(2)}); };
  const auto low = [&](const Tensor& y) { return y.to(x.type); };
  const Tensor keys = scaled(x.k, x.w.mul(x.f), x.type);  // as they enter the state
  const Tensor S = x.batches(list.begins(saved.states));
  const Tensor dO = grad_o.defined() ? x.cut_rows(grad_o) : at::zeros({x.Z, x.group * x.C, x.Vd}, x.q.options());
  const Tensor edO = x.scaled_rows(dO, x.e);

  // dy = w (H + f K dS'), with H from the outputs of the chunk itself.
  Tensor H = product(x.scaled_rows(product(x.q, x.k.transpose(1, 2)), x.D).transpose(1, 2), dO);
  const Tensor all = at::empty({list.count() + B, x.Hkv, x.Kd, x.Vd}, acc);
  if (grad_final.defined())
    all.slice(0, list.count()).copy_(list.sorted(grad_final));
  else
    all.slice(0, list.count()).zero_();
  const Tensor grads = all.view({-1, x.Kd, x.Vd});
  Tensor own = grads.slice(0, 0, x.Z);
  product_into(own, x.q.transpose(1, 2), edO);
  if (x.delta) add_product(own, saved.W.transpose(1, 2), scaled(H, x.w, x.type), -1);
  pass_gradients(x, keys, saved.W, grads);

  const Tensor end = list.end_grads(all), dS = low(x.batches(end));
  add_product(H, scaled(x.k, x.f, x.type), dS);
  Tensor dV = scaled(H, x.w, x.type);
  if (x.delta) {
    dV = at::bmm(saved.T.transpose(1, 2), dV);
    const Tensor M = scaled(product(x.k, x.k.transpose(1, 2)), x.D, x.type);
    M.diagonal(0, 1, 2).zero_();
    add_product(H, M.transpose(1, 2), dV, -1);
  }
  const Tensor dw = row_sums(saved.y, H);

  // dk, in its parts as a writer (dK) and as a reader, through e K S and N. The diagonal of d(B) is set apart.
  const Tensor yT = saved.y.transpose(1, 2), Dw = x.D.mul(x.w.transpose(1, 2));
  const Tensor dOy = product(dO, yT), dB = x.scaled_rows(dOy, Dw);
  const auto diagonals = [&](const Tensor& y) { return heads(y).diagonal(0, 2, 3).unsqueeze(-1); };
  const Tensor self = diagonals(dOy).mul(x.w.unsqueeze(1));  // D is 1 there
  diagonals(dB).zero_();
  Tensor dQ = product(edO, S.transpose(1, 2)), dK = product(dB.transpose(1, 2), x.q), read;
  add_product(dQ, dB, x.k);
  if (x.delta) {
    const Tensor dN = scaled(product(dV, yT), Dw, x.type);  // negative
    dN.diagonal(0, 1, 2).zero_();
    add_product(dK, dN.transpose(1, 2), x.k, -1);
    read = product(scaled(dV, x.e, x.type), S.transpose(1, 2));
    add_product(read, dN, x.k);
  }

  // exp(G) goes with every reader's row and exp(-G) with every writer's, so that G's gradient is the difference of
  // their products with what they multiply; g's is the sum of those that follow. Where reader and writer are one token
  // the difference is zero and must not be summed: beside strong decay, nothing else is left. What enters the last
  // state goes with exp(G_C - G), the sum of the g that follow: a sum over what came before, without the token itself.
  const Tensor inside = row_sums(x.k, dK);
  Tensor dG = row_sums(x.q, dQ).view({x.Z, x.group, x.C, 1}).sum(1).sub_(inside);
  if (x.delta) dG.sub_(row_sums(x.k, read));
  add_product(dK, scaled(saved.y, x.w.mul(x.f), x.type), dS.transpose(1, 2));
  const Tensor passed = row_sums(x.k, dK).sub_(inside).slice(1, 0, x.C - 1).cumsum(1);
  const Tensor dg = dG.sum(1, /*keepdim=*/true).sub(dG.cumsum(1)).add_(dG);
  dg.slice(1, 1).add_(passed);
  dg.add_(x.last.mul(x.batches(end).mul(S).sum({1, 2}, /*keepdim=*/true)));

  heads(dQ).addcmul_(self, x.k.unsqueeze(1));
  if (x.group == 1)
    dK.addcmul_(self.squeeze(1), x.q);
  else
    dK.add_(heads(x.q).mul(self).sum(1));
  if (x.delta) dK.sub_(read);
  return {x.join_rows(dQ),
          x.join_keys(dK, x.type),
          x.join_keys(dV, x.type),
          x.join_keys(dg, x.acc).squeeze(-1),
          x.join_keys(dw, x.acc).squeeze(-1),
          list.initial_grads(all).contiguous()};
}

}  // namespace oryx::ops
