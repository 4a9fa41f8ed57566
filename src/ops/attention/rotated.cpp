#include "ops/attention/rotated.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/repeat_interleave.h>

#include "ops/common/packing.h"

namespace oryx::ops {

std::pair<at::Tensor, at::Tensor> rotated(Rope rope, const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                                          double rope_base) {
  const int64_t N = k.size(0);
  const at::Tensor ends = index_on(cu_seqlens.to(at::kLong), k.device());
  const at::Tensor begins = ends.slice(0, 0, -1), lengths = ends.slice(0, 1) - begins;
  const at::Tensor positions = at::arange(N, ends.options()) - begins.repeat_interleave(lengths, 0, N);
  const at::Tensor read = read_index ? positions.index_select(0, index_on(*read_index, k.device())) : positions;
  return {rope(q, read, rope_base), rope(k, positions, rope_base)};
}

}  // namespace oryx::ops
