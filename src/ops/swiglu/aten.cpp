#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>

#include "ops/common/packing.h"
#include "ops/swiglu/op.h"

namespace oryx::ops {

at::Tensor swiglu_aten(const at::Tensor& gate, const at::Tensor& up) {
  const auto compute = accumulate_type(gate.scalar_type());
  return (at::silu(gate.to(compute)) * up.to(compute)).to(gate.scalar_type());
}

}  // namespace oryx::ops
