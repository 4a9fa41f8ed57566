#include "ops/attention/rotated.h"

namespace oryx::ops {

std::pair<at::Tensor, at::Tensor> rotated(Rope rope, const at::Tensor& q, const at::Tensor& k, const Packing& packing,
                                          double rope_base) {
  return {rope(q, packing.row_positions_on(q.device()), rope_base),
          rope(k, packing.positions_on(k.device()), rope_base)};
}

}  // namespace oryx::ops
