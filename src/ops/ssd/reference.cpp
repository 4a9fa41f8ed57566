#include <ATen/ATen.h>

#include "ops/common/packing.h"
#include "ops/ssd/op.h"

namespace oryx::ops {

std::tuple<at::Tensor, at::Tensor> ssd_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                 const at::Tensor& g, const at::Tensor& dt,
                                                 const at::Tensor& cu_seqlens,
                                                 const std::optional<at::Tensor>& initial_state,
                                                 const std::optional<at::Tensor>& read_index) {
  const Packing packing = make_packing("ssd_reference", cu_seqlens, read_index, k.size(0));
  const auto acc = accumulate_type(q.scalar_type());
  const int64_t Hkv = k.size(1), Kd = k.size(2), Vd = v.size(2), group = q.size(1) / Hkv;
  const auto zero = at::zeros({Hkv, Kd, Vd}, k.options().dtype(acc));
  std::vector<at::Tensor> outputs, states;
  for (int64_t b = 0, row = 0; b < packing.sequences(); ++b) {
    at::Tensor S = initial_state ? (*initial_state)[b] : zero;
    for (int64_t t = packing.tokens[b]; t < packing.tokens[b + 1]; ++t) {
      const at::Tensor kt = k[t].to(acc).unsqueeze(-1), vt = v[t].to(acc);  // [Hkv, Kd, 1], [Hkv, Vd]
      S = g[t].to(acc).exp().view({Hkv, 1, 1}) * S + dt[t].to(acc).view({Hkv, 1, 1}) * kt * vt.unsqueeze(1);
      if (row == packing.num_rows() || packing.token_of(row) != t) continue;
      outputs.push_back((S.repeat_interleave(group, 0) * q[row].to(acc).unsqueeze(-1)).sum(1));  // [H, Vd]
      ++row;
    }
    states.push_back(S);
  }
  const at::Tensor o = outputs.empty() ? at::zeros({0, q.size(1), Vd}, q.options()) : at::stack(outputs);
  return {o.to(q.scalar_type()), at::stack(states)};
}

}  // namespace oryx::ops
