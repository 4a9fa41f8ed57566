#include "model/language_model.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "model/block.h"
#include "model/recompute.h"
#include "ops/common/packing.h"
#include "ops/common/products.h"
#include "ops/linear_cross_entropy/op.h"

namespace oryx {

LanguageModel::LanguageModel(ModelConfig config, std::vector<std::pair<std::string, at::Tensor>> weights)
    : config_(std::move(config)), weights_(std::move(weights)) {
  for (size_t i = 0; i < weights_.size(); ++i) index_.emplace(weights_[i].first, i);
}

const at::Tensor& LanguageModel::weight(const std::string& name) const {
  const auto found = index_.find(name);
  require(found != index_.end(), "the model has no weight '{}'", name);
  return weights_[found->second].second;
}

void LanguageModel::set_weight(const std::string& name, const at::Tensor& value) {
  const at::Tensor& w = weight(name);
  require(w.sizes() == value.sizes(), "weight '{}' was given another shape than its own", name);
  c10::NoGradGuard no_grad;
  w.copy_(value);
}

void LanguageModel::set_compute_type(at::ScalarType type, bool convert_weights) {
  compute_ = type;
  if (!convert_weights) return;
  for (auto& [name, w] : weights_)
    if (w.dim() == 2) w = w.detach().to(type);
}

void LanguageModel::to_double() {
  for (auto& [name, w] : weights_) w = w.detach().to(at::kDouble);
  compute_ = at::kDouble;
}

void LanguageModel::require_gradients(bool on) {
  for (auto& [name, w] : weights_) w.requires_grad_(on);
}

LanguageModel LanguageModel::snapshot() const {
  LanguageModel copy = *this;
  for (auto& [name, w] : copy.weights_)
    w = w.detach().to(at::kCPU, w.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  return copy;
}

void LanguageModel::check_caches(const SequenceLayout& layout, const CacheUse& use) const {
  const auto caches = use.past;
  const auto uses = [&](Mode mode) {
    for (const auto& s : layout.sequences())
      if (s.schedule.uses(mode)) return true;
    return false;
  };
  for (Mode mode : {Mode::attention, Mode::recurrent})
    require(config_.has(mode) || !uses(mode), "the schedule serves tokens by {}, a mixer that this model does not have",
            mode_name(mode));
  if (caches.empty()) {
    require(!layout.continues(), "a sequence that continues needs its cache");
    return;
  }
  require(static_cast<int64_t>(caches.size()) == layout.num_sequences(), "{} caches were given for {} sequences",
          caches.size(), layout.num_sequences());
  for (size_t b = 0; b < caches.size(); ++b) {
    const Cache& cache = *caches[b];
    require(cache.length() == layout.sequences()[b].offset,
            "sequence {} continues after {} tokens, but its cache holds {}", b, layout.sequences()[b].offset,
            cache.length());
    for (size_t other = 0; other < b && !use.written.empty(); ++other)
      require(caches[other] != &cache, "sequences {} and {} were given the same cache", other, b);
    require(cache.has_kv() == caches[0]->has_kv() && cache.has_state() == caches[0]->has_state(),
            "caches of one batch must hold the same parts");
    const auto& schedule = layout.sequences()[b].schedule;
    require(cache.has_kv() || !schedule.uses(Mode::attention),
            "the schedule attends, but the cache's keys and values were dropped");
    require(cache.has_state() || !schedule.uses(Mode::recurrent),
            "the schedule recurs, but the cache's recurrent state was dropped");
  }
}

at::Tensor LanguageModel::hidden(const at::Tensor& tokens, const SequenceLayout& layout,
                                 std::span<Cache* const> caches) const {
  return run(tokens, layout, {caches, caches});
}

at::Tensor LanguageModel::hidden_after(std::span<const Cache* const> past, const at::Tensor& tokens,
                                       const SequenceLayout& layout) const {
  return run(tokens, layout, {past, {}});
}

at::Tensor LanguageModel::run(const at::Tensor& tokens, const SequenceLayout& layout, const CacheUse& caches) const {
  require(tokens.scalar_type() == at::kLong && tokens.dim() == 1 && tokens.size(0) == layout.num_tokens(),
          "tokens must be int64 [{}], the layout's number of tokens", layout.num_tokens());
  check_caches(layout, caches);
  if (tokens.numel() > 0) {
    const auto low = tokens.min().item<int64_t>(), high = tokens.max().item<int64_t>();
    require(low >= 0 && high < config_.vocab_size, "token id {} is outside the vocabulary of {}", low < 0 ? low : high,
            config_.vocab_size);
  }
  if (tokens.numel() == 0)
    return at::empty({0, config_.hidden_size}, weights_.front().second.options().dtype(compute_).requires_grad(false));
  const auto residual = ops::accumulate_type(compute_);
  Residual x{at::embedding(weight("model.embed_tokens.weight"), ops::index_on(tokens, device())).to(residual), {}};
  std::shared_ptr<const RecomputedRun> again;
  if (RecomputeGuard::on() && x.x.requires_grad() && caches.past.empty())
    again = std::make_shared<const RecomputedRun>(RecomputedRun{*this, layout});
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
    x = again ? Residual{recomputed_layer(again, layer, x.x), {}} : Block(*this, layer).forward(x, layout, caches);
  for (size_t b = 0; b < caches.written.size(); ++b) caches.written[b]->commit(layout.sequences()[b].schedule.length());
  return std::get<1>(x.normed(*this, weight("model.norm.weight")));
}

static const char* head_name(const ModelConfig& config) {
  return config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
}

at::Tensor LanguageModel::logits(const at::Tensor& hidden) const {
  return ops::linear(hidden, weight(head_name(config_)).to(compute_)).to(ops::accumulate_type(compute_));
}

at::Tensor LanguageModel::losses(const at::Tensor& hidden, const at::Tensor& targets) const {
  return ops::linear_cross_entropy(hidden, weight(head_name(config_)).to(compute_), targets);
}

at::Tensor LanguageModel::loss_sum(const at::Tensor& hidden, const at::Tensor& targets, double scale) const {
  return ops::linear_cross_entropy_sum(hidden, weight(head_name(config_)), targets, -100, scale);
}

std::tuple<at::Tensor, at::Tensor> LanguageModel::log_probs(const at::Tensor& hidden, const at::Tensor& targets) const {
  return ops::linear_log_probs(hidden, weight(head_name(config_)).to(compute_), targets);
}

}  // namespace oryx
