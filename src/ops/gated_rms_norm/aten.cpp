#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>

#include "ops/common/packing.h"
#include "ops/gated_rms_norm/op.h"

namespace oryx::ops {

at::Tensor gated_rms_norm_aten(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps) {
  const auto compute = accumulate_type(x.scalar_type());
  const at::Tensor a = x.to(compute);
  const at::Tensor normed = a * at::rsqrt((a * a).mean(-1, /*keepdim=*/true) + eps);
  return (normed * weight.to(compute) * at::silu(gate.to(compute))).to(x.scalar_type());
}

}  // namespace oryx::ops
