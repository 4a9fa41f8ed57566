#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace oryx::bench {

at::ScalarType scalar_type(const std::string& dtype);  // "fp32" | "bf16"

// What the mixers read, for the longest sequence; shorter ones take its beginning.
struct MixerInputs {
  at::Tensor q, k, v;      // [T, heads, dim]; rows of q and k of unit length, q also times dim^-1/2
  at::Tensor g, beta, dt;  // [T, heads] float32: decays of 0.9 and up, beta in (0, 1), dt about 0.02
};

// Random tensors that cases share. Filled tile by tile: drawing a gigabyte of normal numbers takes longer than reading
// it.
class Inputs {
 public:
  // Cases bound by memory walk through different data of this many bytes, or they would measure the caches.
  Inputs(at::Device device, int64_t rotation_bytes) : device_(device), rotation_bytes_(rotation_bytes) {}

  at::Device device() const { return device_; }
  const MixerInputs& mixer(int64_t tokens, int64_t heads, int64_t dim, const std::string& dtype);
  // How many different operands a case that reads `bytes` in a call should take turns with.
  int64_t turns(double bytes) const;
  // `turns` tensors of normal numbers that lie one behind the other; cases of one dtype share the memory.
  std::vector<at::Tensor> rotation(const std::string& dtype, at::IntArrayRef sizes);
  // Float32 states [batch, heads, dim, dim], as many as `turns`, shared by the cases, which write new ones into it.
  std::vector<at::Tensor>& states(int64_t batch, int64_t heads, int64_t dim);
  at::Tensor normal(at::IntArrayRef sizes, const std::string& dtype) const;
  at::Tensor cu_seqlens(int64_t sequences, int64_t tokens_each) const;  // int32 [sequences + 1]

 private:
  at::Device device_;
  int64_t rotation_bytes_;
  std::map<std::tuple<int64_t, int64_t, std::string>, MixerInputs> mixers_;
  std::map<std::string, at::Tensor> flat_;
  std::map<int64_t, std::vector<at::Tensor>> states_;
};

}  // namespace oryx::bench
