#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <cmath>

#include "base/random.h"
#include "model/language_model.h"

namespace oryx {
namespace {

uint64_t name_hash(const std::string& name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325ull;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

at::Tensor draw(const WeightSpec& spec, const ModelConfig& config, uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(Random{seed, name_hash(spec.name)}.next());
  at::Tensor w = at::empty(spec.shape, at::kFloat);
  switch (spec.init) {
    case WeightSpec::Init::ones:
      return w.fill_(1);
    case WeightSpec::Init::normal:
      return w.normal_(0, config.initializer_range, generator);
    case WeightSpec::Init::normal_scaled:
      return w.normal_(0, config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers)),
                       generator);
    case WeightSpec::Init::conv: {
      const double bound = 1 / std::sqrt(static_cast<double>(config.conv_kernel));
      return w.uniform_(-bound, bound, generator);
    }
    case WeightSpec::Init::a_log:
      return w.uniform_(1, 16, generator).log_();
    case WeightSpec::Init::dt_bias: {
      const at::Tensor dt = w.uniform_(std::log(1e-3), std::log(1e-1), generator).exp();
      return dt + (-(-dt).expm1()).log();  // the inverse of softplus
    }
  }
  return w;
}

}  // namespace

LanguageModel LanguageModel::random(const ModelConfig& config, uint64_t seed, at::Device device) {
  config.validate();
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (const WeightSpec& spec : weight_specs(config))
    weights.emplace_back(spec.name, draw(spec, config, seed).to(device));
  return {config, std::move(weights)};
}

}  // namespace oryx
