#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>

#include "ops/common/packing.h"
#include "ops/rms_norm/op.h"

namespace oryx::ops {

at::Tensor rms_norm_aten(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, double scale,
                         std::optional<at::ScalarType> dtype) {
  const at::Tensor a = x.to(accumulate_type(x.scalar_type()));
  at::Tensor y = a * (at::rsqrt((a * a).mean(-1, /*keepdim=*/true) + eps) * scale);
  if (weight) y = y * weight->to(a.scalar_type());
  return y.to(dtype.value_or(x.scalar_type()));
}

}  // namespace oryx::ops
