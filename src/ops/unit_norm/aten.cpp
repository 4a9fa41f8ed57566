#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sum.h>

#include "ops/common/packing.h"
#include "ops/unit_norm/op.h"

namespace oryx::ops {

at::Tensor unit_norm_aten(const at::Tensor& x, double eps, double scale, std::string_view activation) {
  at::Tensor a = x.to(accumulate_type(x.scalar_type()));
  if (activation == "silu") a = at::silu(a);
  return (a * (at::rsqrt((a * a).sum(-1, /*keepdim=*/true) + eps) * scale)).to(x.scalar_type());
}

}  // namespace oryx::ops
