#include "model/block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "model/language_model.h"
#include "model/recurrence.h"
#include "ops/attention/op.h"
#include "ops/common/packing.h"
#include "ops/common/products.h"
#include "ops/gated_rms_norm/op.h"
#include "ops/rms_norm/op.h"
#include "ops/short_conv/op.h"
#include "ops/swiglu/op.h"
#include "ops/unit_norm/op.h"

namespace oryx {
namespace {

constexpr double kUnitEps = 1e-6;  // DESIGN section 2, below the root of the keys' length

// x's rows at indices that differ from each other, so that nothing has to be added up in the backward pass.
struct RowsFunction : torch::autograd::Function<RowsFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& index) {
    ctx->save_for_backward({index});
    ctx->saved_data["sizes"] = x.sizes().vec();
    return x.index_select(0, index);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::Tensor index = ctx->get_saved_variables()[0];
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    return {at::zeros(sizes, grads[0].options()).index_copy_(0, index, grads[0]), at::Tensor()};
  }
};

at::Tensor rows(const at::Tensor& x, const std::optional<at::Tensor>& index) {
  return index ? RowsFunction::apply(x, *index) : x;
}

}  // namespace

Block::Block(const LanguageModel& model, int64_t layer)
    : model_(model), config_(model.config()), layer_(layer), prefix_("model.layers." + std::to_string(layer) + ".") {}

at::Tensor Block::parameter(const std::string& name) const {
  return model_.weight(prefix_ + name);
}
at::Tensor Block::weight(const std::string& name) const {
  return parameter(name).to(model_.compute_type());
}

at::Tensor Block::project(const at::Tensor& h, const std::string& name, int64_t heads) const {
  const at::Tensor y = ops::linear(h, weight(name));
  return heads > 0 ? y.view({h.size(0), heads, y.size(1) / heads}) : y;
}

Block::Written Block::write(const at::Tensor& h, const SequenceLayout& layout, CacheUse caches) const {
  const int64_t Hkv = config_.num_key_value_heads;
  Written out;
  out.k_input = project(h, "mixer.k_proj.weight", 0);
  out.v_input = project(h, "mixer.v_proj.weight", 0);
  std::optional<at::Tensor> k_tails, v_tails;
  if (layout.continues()) {
    std::vector<at::Tensor> k, v;
    for (const Cache* cache : caches.past) k.push_back(cache->key_tail(layer_)), v.push_back(cache->value_tail(layer_));
    k_tails = at::stack(k), v_tails = at::stack(v);
  }
  const auto conv = [&](const at::Tensor& x, const char* name, const std::optional<at::Tensor>& tails) {
    return ops::short_conv(x, weight(name), layout.cu_seqlens(), tails, config_.conv_activation);
  };
  at::Tensor k, v;
  std::tie(k, out.k_tail) = conv(out.k_input, "mixer.k_conv.weight", k_tails);
  std::tie(v, out.v_tail) = conv(out.v_input, "mixer.v_conv.weight", v_tails);
  out.k = ops::unit_norm(k.view({h.size(0), Hkv, config_.head_dim}), kUnitEps);
  out.v = v.view({h.size(0), Hkv, config_.value_head_dim});
  // Where nothing recurs, gates are for the caches alone.
  const bool gated = layout.reads(layer_).recurrent_count > 0 || !caches.written.empty();
  if (const auto mixer = config_.recurrent(); mixer && gated) {
    const auto acc = ops::accumulate_type(model_.compute_type());
    const at::Tensor a = project(h, "mixer.recurrent.a_proj.weight", 0).to(acc) + parameter("mixer.recurrent.dt_bias");
    const at::Tensor dt = at::softplus(a, 1, 40);
    out.g = -parameter("mixer.recurrent.A_log").exp() * dt;
    out.w = mixer == Mixer::mamba2 ? dt : project(h, "mixer.recurrent.b_proj.weight", 0).to(acc).sigmoid();
  }
  return out;
}

at::Tensor Block::attention(const at::Tensor& h, const Written& written, const SequenceLayout& layout,
                            CacheUse caches) const {
  const LayerReads& reads = layout.reads(layer_);
  at::Tensor k = written.k, v = written.v;
  if (layout.continues()) {
    std::vector<at::Tensor> keys, values;
    for (size_t b = 0; b < caches.past.size(); ++b) {
      const Cache& cache = *caches.past[b];
      const int64_t begin = layout.begins()[b], end = layout.begins()[b + 1];
      const bool written_there = !caches.written.empty();
      const int64_t staged = written_there ? end - begin : 0;
      keys.push_back(cache.keys(layer_, staged)), values.push_back(cache.values(layer_, staged));
      if (!written_there) keys.push_back(k.slice(0, begin, end)), values.push_back(v.slice(0, begin, end));
    }
    // One sequence's keys are read where they lie.
    k = keys.size() == 1 ? keys[0] : at::cat(keys), v = values.size() == 1 ? values[0] : at::cat(values);
  }
  at::Tensor q = project(rows(h, reads.attention), "mixer.attention.q_proj.weight", config_.num_attention_heads);
  q = ops::rms_norm(q, std::nullopt, config_.rms_norm_eps) * weight("mixer.attention.scale").unsqueeze(-1);
  return ops::attention(q, k, v, layout.key_cu_seqlens(), reads.attention_keys, 1.0, config_.rope_theta);
}

at::Tensor Block::recurrent(const at::Tensor& h, const Written& written, const SequenceLayout& layout, CacheUse caches,
                            at::Tensor& final_state) const {
  const LayerReads& reads = layout.reads(layer_);
  const int64_t H = config_.num_attention_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
  const bool mamba2 = config_.recurrent() == Mixer::mamba2;
  at::Tensor q = project(rows(h, reads.recurrent), "mixer.recurrent.q_proj.weight", H);
  if (mamba2)
    q = ops::rms_norm(q, std::nullopt, config_.rms_norm_eps, scale) * weight("mixer.recurrent.scale").unsqueeze(-1);
  else
    q = ops::unit_norm(q, kUnitEps, scale, "silu");
  std::optional<at::Tensor> initial;
  if (layout.continues()) {
    std::vector<at::Tensor> states;
    for (const Cache* cache : caches.past) states.push_back(cache->state(layer_));
    initial = at::stack(states);
  }
  at::Tensor o;
  std::tie(o, final_state) = run_recurrence(config_, q, written.k, written.v, written.g, written.w, layout.cu_seqlens(),
                                            initial, reads.recurrent);
  if (mamba2) {
    const at::Tensor v = rows(written.v, reads.recurrent).repeat_interleave(H / config_.num_key_value_heads, 1);
    o = o + weight("mixer.recurrent.D").unsqueeze(-1) * v;
  }
  return o;
}

void Block::stage_rows(const Written& written, const SequenceLayout& layout, std::span<Cache* const> caches) const {
  Cache::Copies copies;
  for (size_t b = 0; b < caches.size(); ++b) {
    const auto rows = [&](const at::Tensor& x) {
      return x.defined() ? x.detach().slice(0, layout.begins()[b], layout.begins()[b + 1]) : x;
    };
    caches[b]->stage(layer_, Cache::Rows{rows(written.k), rows(written.v), rows(written.g), rows(written.w),
                                         rows(written.k_input), rows(written.v_input)},
                      copies);
  }
  copies.run();
}

void Block::stage_ends(const Written& written, const at::Tensor& final_state, std::span<Cache* const> caches) const {
  for (size_t b = 0; b < caches.size(); ++b) {
    const auto one = [&](const at::Tensor& x) {
      return x.defined() ? x.detach().select(0, static_cast<int64_t>(b)) : x;
    };
    caches[b]->stage(layer_, Cache::Ends{one(written.k_tail), one(written.v_tail), one(final_state)});
  }
}

at::Tensor Residual::sum() const {
  return delta.defined() ? x + delta : x;
}

std::tuple<at::Tensor, at::Tensor> Residual::normed(const LanguageModel& model, const at::Tensor& weight) const {
  const double eps = model.config().rms_norm_eps;
  if (delta.defined()) return ops::add_rms_norm(x, delta, weight, eps);
  return {x, ops::rms_norm(x, weight, eps, 1.0, model.compute_type())};
}

Residual Block::forward(const Residual& residual, const SequenceLayout& layout, CacheUse caches) const {
  const LayerReads& reads = layout.reads(layer_);
  const int64_t H = config_.num_attention_heads;
  const auto [x, h] = residual.normed(model_, parameter("mixer_norm.weight"));
  const Written written = write(h, layout, caches);
  if (!caches.written.empty()) stage_rows(written, layout, caches.written);
  at::Tensor by_attention, by_recurrence, final_state;
  if (reads.attention_count > 0) by_attention = attention(h, written, layout, caches);
  // A cache keeps its state up with every token, also where attention serves them all.
  const bool keeps_state = !caches.written.empty() && caches.written[0]->has_state();
  if (reads.recurrent_count > 0 || keeps_state) by_recurrence = recurrent(h, written, layout, caches, final_state);
  if (!caches.written.empty()) stage_ends(written, final_state, caches.written);
  if (reads.count() == 0) return {x.slice(0, 0, 0), {}};
  at::Tensor o = reads.merge                 ? rows(at::cat({by_attention, by_recurrence}), reads.merge)
                 : reads.attention_count > 0 ? by_attention
                                             : by_recurrence;
  o = ops::gated_rms_norm(o, project(rows(h, reads.wanted), "mixer.gate_proj.weight", H), weight("mixer.o_norm.weight"),
                          config_.rms_norm_eps);
  const Residual mixed{rows(x, reads.wanted), ops::linear(o.view({reads.count(), -1}), weight("mixer.o_proj.weight"))};
  const auto [y, m] = mixed.normed(model_, parameter("mlp_norm.weight"));
  const at::Tensor up = ops::swiglu(project(m, "mlp.gate_proj.weight", 0), project(m, "mlp.up_proj.weight", 0));
  return {y, ops::linear(up, weight("mlp.down_proj.weight"))};
}

}  // namespace oryx
