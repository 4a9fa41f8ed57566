#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/cache.h"
#include "model/config.h"
#include "model/layout.h"

namespace oryx {

struct CacheUse;

// A decoder whose every token may be served by attention or by the model's recurrence (DESIGN section 2). Weights are
// leaves of autograd with Hugging Face names; activations have the compute type, the residual stream float32 (float64
// in a float64 model).
class LanguageModel {
 public:
  // Random weights in float32 (DESIGN section 2). A weight depends on the seed, its name and its shape alone, so models
  // of different kinds share what they have in common.
  static LanguageModel random(const ModelConfig& config, uint64_t seed, at::Device device = at::kCPU);
  // A model directory (CONTRACT section 3), sharded or not; weights become float32. InputErrors name the file and
  // tensor: missing, unknown, of another shape or a dtype that holds no weights, not finite.
  static LanguageModel load(const std::filesystem::path& directory, at::Device device = at::kCPU);
  // Writes config.json and model.safetensors into an existing directory, in shards of at most `shard_bytes` with an
  // index when there is more; weights in config.dtype, or in float32 when `full_precision`. Use it inside a
  // StagedDirectory.
  void save(const std::filesystem::path& directory, int64_t shard_bytes = int64_t{4} << 30,
            bool full_precision = false) const;

  const ModelConfig& config() const { return config_; }
  at::ScalarType compute_type() const { return compute_; }
  at::Device device() const { return weights_.front().second.device(); }
  // Activations and matrix products in float32 or bfloat16 (float64 after to_double). Weights stay as they are unless
  // `convert_weights`, which turns the matrices into the compute type for inference.
  void set_compute_type(at::ScalarType type, bool convert_weights = false);
  void to_double();  // weights and arithmetic in float64, for tests
  void require_gradients(bool on);
  // Of a model with two mixers: which part of the recurrence's gradient for the keys counts, in [0, 1]; 1 at first.
  void set_key_gradient(double part) { key_gradient_ = part; }
  double key_gradient() const { return key_gradient_; }

  // A copy on the CPU that shares nothing with this one.
  LanguageModel snapshot() const;

  // In the order of weight_specs(config()).
  const std::vector<std::pair<std::string, at::Tensor>>& weights() const { return weights_; }
  const at::Tensor& weight(const std::string& name) const;
  void set_weight(const std::string& name, const at::Tensor& value);  // same shape; copied in place

  // Final hidden states in the compute type of `tokens` (int64 [N]): [N, D], or of the tokens that the layout wants
  // alone. Tokens and targets are best on the CPU, where looking at them waits for no GPU. With caches, one for each
  // sequence of the layout: sequence b continues its cache, whose length is the layout's offset, and the cache holds
  // the new tokens afterwards. InputError for ids outside the vocabulary, a mode that the model lacks, and a cache that
  // dropped what the schedule needs; the caches are then unchanged.
  at::Tensor hidden(const at::Tensor& tokens, const SequenceLayout& layout, std::span<Cache* const> caches = {}) const;
  // The same for sequences that leave nothing behind: their caches are read alone, and several may continue one.
  at::Tensor hidden_after(std::span<const Cache* const> past, const at::Tensor& tokens,
                          const SequenceLayout& layout) const;
  at::Tensor logits(const at::Tensor& hidden) const;  // [..., V], float32 (float64)
  // -log p of targets (int64 [N], -100: none) per token, float32 (float64) [N].
  at::Tensor losses(const at::Tensor& hidden, const at::Tensor& targets) const;
  // Their sum times `scale`: in training a quarter cheaper (ops::linear_cross_entropy_sum).
  at::Tensor loss_sum(const at::Tensor& hidden, const at::Tensor& targets, double scale = 1) const;
  // log p of targets (int64 [N]) and the largest logit's, float32 (float64) [N]; without gradients.
  std::tuple<at::Tensor, at::Tensor> log_probs(const at::Tensor& hidden, const at::Tensor& targets) const;

  Cache make_cache(Cache::Options options) const { return {config_, compute_, device(), options}; }
  Cache make_cache() const { return make_cache({}); }

 private:
  LanguageModel(ModelConfig config, std::vector<std::pair<std::string, at::Tensor>> weights);
  void check_caches(const SequenceLayout& layout, const CacheUse& caches) const;
  at::Tensor run(const at::Tensor& tokens, const SequenceLayout& layout, const CacheUse& caches) const;

  ModelConfig config_;
  std::vector<std::pair<std::string, at::Tensor>> weights_;
  std::unordered_map<std::string, size_t> index_;
  at::ScalarType compute_ = at::kFloat;
  double key_gradient_ = 1;
};

}  // namespace oryx
