#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <vector>

#include "ops/common/packing.h"
#include "ops/rope/op.h"

namespace oryx::ops {

at::Tensor rope_reference(const at::Tensor& x, const at::Tensor& positions, double base) {
  const int64_t dim = x.size(2), half = dim / 2;
  const at::Tensor xs = x.to(accumulate_type(x.scalar_type()));
  std::vector<at::Tensor> out;
  for (int64_t n = 0; n < x.size(0); ++n) {
    std::vector<double> sine, cosine;
    for (int64_t j = 0; j < half; ++j) {
      const double frequency = std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(dim));
      const double angle = static_cast<double>(positions[n].item<int64_t>()) * frequency;
      sine.push_back(std::sin(angle));
      cosine.push_back(std::cos(angle));
    }
    const at::Tensor s = at::tensor(sine, at::kDouble).to(xs.scalar_type());
    const at::Tensor c = at::tensor(cosine, at::kDouble).to(xs.scalar_type());
    const at::Tensor first = xs[n].narrow(-1, 0, half), second = xs[n].narrow(-1, half, half);
    out.push_back(at::cat({first * c - second * s, second * c + first * s}, -1));
  }
  return (out.empty() ? xs : at::stack(out)).to(x.scalar_type());
}

}  // namespace oryx::ops
