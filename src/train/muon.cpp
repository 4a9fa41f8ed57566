#include "train/muon.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/mm.h>

#include <cmath>

namespace oryx {

at::Tensor orthogonalize(const at::Tensor& m) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  // The products of the shorter side are the smaller ones.
  const bool tall = m.size(0) > m.size(1);
  at::Tensor x = tall ? m.t() : m;
  x = x / (x.norm() + 1e-7);
  for (int step = 0; step < 5; ++step) {
    const at::Tensor A = x.mm(x.t());
    x = at::addmm(x, at::addmm(A, A, A, b, c), x, a);
  }
  return tall ? x.t() : x;
}

at::Tensor muon_momentum(const at::Tensor& gradient, at::Tensor& momentum, double mu) {
  momentum.lerp_(gradient, 1 - mu);
  return at::lerp(gradient, momentum, mu);
}

void muon_apply(at::Tensor& weight, const at::Tensor& orthogonal, int64_t longer_side, double lr, double decay) {
  weight.mul_(1 - lr * decay).sub_(orthogonal, lr * 0.2 * std::sqrt(static_cast<double>(longer_side)));
}

}  // namespace oryx
