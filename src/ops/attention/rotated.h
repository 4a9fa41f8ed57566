#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "ops/common/packing.h"

namespace oryx::ops {

using Rope = at::Tensor (*)(const at::Tensor& x, const at::Tensor& positions, double base);

// q and k of attention, each turned by `rope` by its token's place in its sequence. Does not wait for a GPU.
inline std::pair<at::Tensor, at::Tensor> rotated(Rope rope, const at::Tensor& q, const at::Tensor& k,
                                                 const Packing& packing, double rope_base) {
  return {rope(q, packing.row_positions_on(q.device()), rope_base),
          rope(k, packing.positions_on(k.device()), rope_base)};
}

}  // namespace oryx::ops
