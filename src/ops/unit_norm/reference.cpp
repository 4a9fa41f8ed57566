#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>

#include <vector>

#include "ops/common/packing.h"
#include "ops/unit_norm/op.h"

namespace oryx::ops {

at::Tensor unit_norm_reference(const at::Tensor& x, double eps, double scale, std::string_view activation) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).to(accumulate_type(x.scalar_type()));
  std::vector<at::Tensor> out;
  for (int64_t n = 0; n < rows.size(0); ++n) {
    const at::Tensor a = activation == "silu" ? rows[n] / (1 + at::exp(-rows[n])) : rows[n];
    out.push_back(a * scale / at::sqrt((a * a).sum() + eps));
  }
  const at::Tensor y = out.empty() ? rows : at::stack(out);
  return y.reshape(x.sizes()).to(x.scalar_type());
}

}  // namespace oryx::ops
