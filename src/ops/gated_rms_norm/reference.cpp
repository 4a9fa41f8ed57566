#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/stack.h>

#include <vector>

#include "ops/common/packing.h"
#include "ops/gated_rms_norm/op.h"

namespace oryx::ops {

at::Tensor gated_rms_norm_reference(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps) {
  const auto compute = accumulate_type(x.scalar_type());
  const at::Tensor xs = x.to(compute), gates = gate.to(compute), w = weight.to(compute);
  std::vector<at::Tensor> out;
  for (int64_t n = 0; n < x.size(0); ++n) {
    const at::Tensor a = xs[n], g = gates[n];
    out.push_back(a / at::sqrt((a * a).mean(-1, /*keepdim=*/true) + eps) * w * (g / (1 + at::exp(-g))));
  }
  return (out.empty() ? xs * gates * w : at::stack(out)).to(x.scalar_type());
}

}  // namespace oryx::ops
