#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "ops/attention/op.h"
#include "ops/attention/rotated.h"
#include "ops/common/packing.h"
#include "ops/rope/op.h"

namespace oryx::ops {

at::Tensor attention_reference(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v,
                               const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index, double scale,
                               double rope_base) {
  const Packing packing = make_packing("attention_reference", cu_seqlens, read_index, k_in.size(0));
  const auto [q, k] = rope_base > 0 ? rotated(rope_reference, q_in, k_in, packing, rope_base) : std::pair(q_in, k_in);
  const auto acc = accumulate_type(q.scalar_type());
  const int64_t group = q.size(1) / k.size(1);
  const at::Tensor keys = k.to(acc).repeat_interleave(group, 1), values = v.to(acc).repeat_interleave(group, 1);
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < packing.sequences(); ++b)
    for (int64_t r = packing.rows[b]; r < packing.rows[b + 1]; ++r) {
      const int64_t begin = packing.tokens[b], end = packing.token_of(r) + 1;
      const at::Tensor logits = keys.slice(0, begin, end).mul(q[r].to(acc)).sum(-1).mul(scale);  // [keys, H]
      const at::Tensor p = at::softmax(logits, 0).unsqueeze(-1);
      rows.push_back(p.mul(values.slice(0, begin, end)).sum(0));
    }
  const at::Tensor o = rows.empty() ? at::zeros({0, q.size(1), v.size(2)}, keys.options()) : at::stack(rows);
  return o.to(q.scalar_type());
}

}  // namespace oryx::ops
