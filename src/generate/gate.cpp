#include "generate/gate.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "base/safetensors.h"
#include "generate/repeats.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

int64_t inputs(int64_t model_width) {
  return model_width + Repeats::kFeatures;
}

constexpr std::array kNames{"gate.weight", "gate.bias", "gate.out.weight", "gate.out.bias"};

at::Tensor read_tensor(const SafetensorsReader& reader, const std::string& name, const std::vector<int64_t>& shape,
                       const std::string& file) {
  const auto found = reader.tensors().find(name);
  require(found != reader.tensors().end(), "{}: lacks the tensor '{}'", file, name);
  const StoredTensor& stored = found->second;
  require(stored.dtype == Dtype::f32, "{}: tensor '{}' has dtype {}, but must be F32", file, name,
          dtype_name(stored.dtype));
  require(stored.shape == shape, "{}: tensor '{}' has shape [{}], but this model needs [{}]; train the gate again",
          file, name, fmt::join(stored.shape, ", "), fmt::join(shape, ", "));
  at::Tensor out = at::empty(shape, at::kFloat);
  std::copy(stored.data.begin(), stored.data.end(), static_cast<std::byte*>(out.mutable_data_ptr()));
  require(at::isfinite(out).all().item<bool>(), "{}: tensor '{}' holds NaN or infinite values", file, name);
  return out;
}

}  // namespace

Gate::Gate(at::Tensor weight, at::Tensor bias, at::Tensor out_weight, at::Tensor out_bias)
    : weight_(std::move(weight)),
      bias_(std::move(bias)),
      out_weight_(std::move(out_weight)),
      out_bias_(std::move(out_bias)) {}

Gate::Gate(int64_t model_width, int64_t width, uint64_t seed, at::Device device)
    : bias_(at::zeros({width}, device)), out_bias_(at::zeros({1}, device)) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto draw = [&](std::vector<int64_t> shape) {
    const double deviation = 1 / std::sqrt(static_cast<double>(shape[1]));
    return at::empty(shape, at::kFloat).normal_(0, deviation, generator).to(device);
  };
  weight_ = draw({width, inputs(model_width)});
  out_weight_ = draw({1, width});
}

Gate Gate::load(const fs::path& directory, const LanguageModel& model) {
  const fs::path path = directory / kFile;
  require(fs::exists(path), "{}: no such file; 'oryx gate train' makes one", path.string());
  const SafetensorsReader reader(path);
  const auto first = reader.tensors().find(kNames[0]);
  const int64_t width = first == reader.tensors().end() || first->second.shape.empty() ? 0 : first->second.shape[0];
  const std::array<std::vector<int64_t>, 4> shapes{
      {{width, inputs(model.config().hidden_size)}, {width}, {1, width}, {1}}};
  std::array<at::Tensor, 4> tensors;
  for (size_t i = 0; i < kNames.size(); ++i)
    tensors[i] = read_tensor(reader, kNames[i], shapes[i], path.string()).to(model.device());
  return {tensors[0], tensors[1], tensors[2], tensors[3]};
}

void Gate::save(const fs::path& directory) const {
  std::vector<std::pair<std::string, StoredTensor>> stored;
  std::vector<at::Tensor> held;
  for (const at::Tensor& parameter : parameters()) {
    held.push_back(parameter.detach().to(at::kCPU).contiguous());
    const at::Tensor& w = held.back();
    const std::span bytes(static_cast<const std::byte*>(w.const_data_ptr()), w.nbytes());
    stored.emplace_back(kNames[stored.size()], StoredTensor{Dtype::f32, w.sizes().vec(), bytes});
  }
  const fs::path path = directory / kFile, staged = path.string() + ".tmp";
  write_safetensors(staged, stored, {{"format", "pt"}});
  fs::rename(staged, path);
}

at::Tensor Gate::gain(const ReadTokens& tokens) const {
  const at::Tensor x = at::cat({tokens.hidden.to(at::kFloat), tokens.repeats}, 1);
  const at::Tensor inner = at::silu(at::linear(x, weight_, bias_));
  return at::linear(inner, out_weight_, out_bias_).squeeze(-1);
}

}  // namespace oryx
