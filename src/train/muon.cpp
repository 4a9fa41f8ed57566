#include "train/muon.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace oryx {

at::Tensor orthogonalize(const at::Tensor& m) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  // The products of the shorter side are the smaller ones.
  const bool tall = m.size(-2) > m.size(-1);
  at::Tensor x = (tall ? m.mT() : m).reshape({-1, std::min(m.size(-2), m.size(-1)), std::max(m.size(-2), m.size(-1))});
  x = x / (at::linalg_vector_norm(x, 2, at::IntArrayRef{-2, -1}, /*keepdim=*/true) + 1e-7);
  if (m.is_cuda()) x = x.to(at::kBFloat16);
  for (int step = 0; step < 5; ++step) {
    const at::Tensor A = x.bmm(x.mT());
    x = at::baddbmm(x, at::baddbmm(A, A, A, b, c), x, a);
  }
  return (tall ? x.mT() : x).reshape(m.sizes()).to(m.scalar_type());
}

std::vector<std::vector<size_t>> muon_groups(const std::vector<std::pair<int64_t, int64_t>>& shapes, bool on_gpu) {
  std::vector<std::vector<size_t>> groups;
  std::map<std::pair<int64_t, int64_t>, size_t> open;  // the group that a shape is put into
  for (size_t i = 0; i < shapes.size(); ++i) {
    const int64_t most = on_gpu ? kMuonNumbers / (shapes[i].first * shapes[i].second) : 1;
    const auto [at, fresh] = open.try_emplace(shapes[i], groups.size());
    if (!fresh && static_cast<int64_t>(groups[at->second].size()) >= most) at->second = groups.size();
    if (at->second == groups.size()) groups.emplace_back();
    groups[at->second].push_back(i);
  }
  return groups;
}

std::vector<at::Tensor> orthogonalize_group(const std::vector<at::Tensor>& matrices) {
  return orthogonalize(at::stack(matrices)).unbind();
}

std::vector<at::Tensor> orthogonalize_all(const std::vector<at::Tensor>& matrices) {
  if (matrices.empty()) return {};
  std::vector<std::pair<int64_t, int64_t>> shapes;
  shapes.reserve(matrices.size());
  for (const at::Tensor& m : matrices) shapes.emplace_back(m.size(0), m.size(1));
  std::vector<at::Tensor> results(matrices.size());
  for (const auto& group : muon_groups(shapes, matrices[0].is_cuda())) {
    std::vector<at::Tensor> members;
    members.reserve(group.size());
    for (const size_t i : group) members.push_back(matrices[i]);
    const auto done = orthogonalize_group(members);
    for (size_t k = 0; k < group.size(); ++k) results[group[k]] = done[k];
  }
  return results;
}

at::Tensor muon_momentum(const at::Tensor& gradient, at::Tensor& momentum, double mu, const at::Tensor& taken) {
  // A gradient that is the momentum changes nothing.
  const at::Tensor finite = at::where(taken, gradient, momentum);
  momentum.lerp_(finite, 1 - mu);
  return at::lerp(finite, momentum, mu);
}

void muon_apply(at::Tensor& weight, const at::Tensor& orthogonal, int64_t longer_side, double lr, double decay,
                const at::Tensor& taken) {
  weight.mul_(1 - lr * decay * taken);
  weight.addcmul_(orthogonal, taken, -lr * 0.2 * std::sqrt(static_cast<double>(longer_side)));
}

}  // namespace oryx
