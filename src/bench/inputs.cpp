#include "bench/inputs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softplus.h>

#include <algorithm>
#include <cmath>

#include "ops/unit_norm/op.h"

namespace oryx::bench {

at::ScalarType scalar_type(const std::string& dtype) {
  return dtype == "bf16" ? at::kBFloat16 : at::kFloat;
}

at::Tensor Inputs::normal(at::IntArrayRef sizes, const std::string& dtype) const {
  const at::Tensor out = at::empty(sizes, at::device(device_).dtype(scalar_type(dtype)));
  const at::Tensor flat = out.view({-1});
  const int64_t tile = std::min<int64_t>(flat.size(0), 1 << 22);
  const at::Tensor random = at::randn({tile}, at::device(device_)).to(flat.scalar_type());
  for (int64_t i = 0; i < flat.size(0); i += tile) {
    const int64_t count = std::min(tile, flat.size(0) - i);
    flat.slice(0, i, i + count).copy_(random.slice(0, 0, count));
  }
  return out;
}

const MixerInputs& Inputs::mixer(int64_t tokens, int64_t heads, int64_t dim, const std::string& dtype) {
  MixerInputs& x = mixers_[{heads, dim, dtype}];
  if (x.q.defined() && x.q.size(0) >= tokens) return x;
  const auto unit = [&](double scale) { return ops::unit_norm(normal({tokens, heads, dim}, dtype), 1e-6, scale); };
  x.q = unit(1 / std::sqrt(static_cast<double>(dim))), x.k = unit(1);
  x.v = normal({tokens, heads, dim}, dtype);
  const auto options = at::device(device_);
  x.g = at::softplus(at::randn({tokens, heads}, options)).mul(-0.1).clamp(-0.1, 0);
  x.beta = at::rand({tokens, heads}, options);
  x.dt = at::softplus(at::randn({tokens, heads}, options) - 4);
  return x;
}

int64_t Inputs::turns(double bytes) const {
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(static_cast<double>(rotation_bytes_) / bytes)), 1, 4096);
}

std::vector<at::Tensor> Inputs::rotation(const std::string& dtype, at::IntArrayRef sizes) {
  at::Tensor& flat = flat_[dtype];
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  const int64_t element = dtype == "bf16" ? 2 : 4, number = turns(static_cast<double>(count * element));
  if (!flat.defined() || flat.size(0) < number * count) flat = at::Tensor(), flat = normal({number * count}, dtype);
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < number; ++i) out.push_back(flat.slice(0, i * count, (i + 1) * count).view(sizes));
  return out;
}

std::vector<at::Tensor>& Inputs::states(int64_t batch, int64_t heads, int64_t dim) {
  std::vector<at::Tensor>& out = states_[batch];
  if (out.empty() || out[0].size(1) != heads || out[0].size(3) != dim) {
    out.clear();
    const int64_t number = turns(4.0 * static_cast<double>(batch * heads * dim * dim));
    for (int64_t i = 0; i < number; ++i) out.push_back(normal({batch, heads, dim, dim}, "fp32"));
  }
  return out;
}

at::Tensor Inputs::cu_seqlens(int64_t sequences, int64_t tokens_each) const {
  return (at::arange(sequences + 1, at::kLong) * tokens_each).to(at::kInt).to(device_);
}

}  // namespace oryx::bench
