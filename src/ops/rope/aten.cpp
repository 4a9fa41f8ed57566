#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>

#include "ops/common/packing.h"
#include "ops/rope/op.h"

namespace oryx::ops {

at::Tensor rope_aten(const at::Tensor& x, const at::Tensor& positions, double base) {
  const int64_t dim = x.size(2), half = dim / 2;
  const auto compute = accumulate_type(x.scalar_type());
  const at::Tensor exponents = at::arange(half, x.options().dtype(at::kDouble)) * (-2.0 / static_cast<double>(dim));
  const at::Tensor angles = positions.to(at::kDouble).view({-1, 1, 1}) * at::pow(base, exponents);
  const at::Tensor c = angles.cos().to(compute), s = angles.sin().to(compute);
  const at::Tensor first = x.narrow(2, 0, half).to(compute), second = x.narrow(2, half, half).to(compute);
  return at::cat({first * c - second * s, second * c + first * s}, 2).to(x.scalar_type());
}

}  // namespace oryx::ops
