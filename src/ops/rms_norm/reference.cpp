#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/stack.h>

#include <vector>

#include "ops/common/packing.h"
#include "ops/rms_norm/op.h"

namespace oryx::ops {

at::Tensor rms_norm_reference(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, double scale,
                              std::optional<at::ScalarType> dtype) {
  const auto compute = accumulate_type(x.scalar_type());
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).to(compute);
  std::vector<at::Tensor> out;
  for (int64_t n = 0; n < rows.size(0); ++n) {
    const at::Tensor row = rows[n];
    at::Tensor y = row / at::sqrt((row * row).mean() + eps) * scale;
    if (weight) y = y * (weight->dim() == 2 ? (*weight)[n % weight->size(0)] : *weight).to(compute);
    out.push_back(y);
  }
  const at::Tensor y = out.empty() ? rows : at::stack(out);
  return y.reshape(x.sizes()).to(dtype.value_or(x.scalar_type()));
}

}  // namespace oryx::ops
