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
#include "model/linears.h"
#include "model/recurrence.h"
#include "ops/attention/op.h"
#include "ops/common/packing.h"
#include "ops/common/tensors.h"
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

// All of x's rows in another order, with the index that undoes it.
struct OrderFunction : torch::autograd::Function<OrderFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& order,
                            const at::Tensor& reverse) {
    ctx->save_for_backward({reverse});
    return x.index_select(0, order);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    return {grads[0].index_select(0, ctx->get_saved_variables()[0]), at::Tensor(), at::Tensor()};
  }
};

// x, whose gradient counts in part.
struct PartFunction : torch::autograd::Function<PartFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, double part) {
    ctx->saved_data["part"] = part;
    return x.view_as(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    return {grads[0] * ctx->saved_data["part"].toDouble(), at::Tensor()};
  }
};

constexpr const char *kKeyConv = "mixer.k_conv.weight", *kValueConv = "mixer.v_conv.weight";

// Of a linear layer's rows x [N, Hkv * dim]: convolved [N, Hkv, dim], and what the next tokens need of x.
std::tuple<at::Tensor, at::Tensor> convolved(const ModelConfig& config, const at::Tensor& x, const at::Tensor& weight,
                                             const at::Tensor& cu_seqlens,
                                             const std::optional<at::Tensor>& tails = std::nullopt) {
  const auto [y, tail] = ops::short_conv(x, weight, cu_seqlens, tails, config.conv_activation);
  const int64_t Hkv = config.num_key_value_heads;
  return {y.view({y.size(0), Hkv, y.size(1) / Hkv}), tail};
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

at::Tensor Block::attention_scale() const {
  return parameter("mixer.attention.scale").unsqueeze(-1);
}

std::tuple<at::Tensor, std::vector<at::Tensor>> Block::normed_linears(const Residual& residual, const char* norm,
                                                                      const std::vector<Linear>& layers,
                                                                      const std::optional<at::Tensor>& order) const {
  const at::Tensor norm_weight = parameter(norm);
  if (!ops::wants_graph(residual.x, residual.delta, norm_weight)) {  // addition and norm in one pass
    const auto normed = residual.normed(model_, norm_weight);
    return {std::get<0>(normed), linears([h = std::get<1>(normed)](const auto&) { return h; }, {}, layers)};
  }
  const double eps = config_.rms_norm_eps;
  if (residual.delta.defined())
    return oryx::normed_linears(residual.x, residual.delta, norm_weight, eps, layers, order);
  const auto function = [eps, type = model_.compute_type()](const std::vector<at::Tensor>& in) {
    return ops::rms_norm(in[0], in[1], eps, 1.0, type);
  };
  return {residual.x, linears(function, {residual.x, norm_weight}, layers, order)};
}

Block::Projected Block::project(const Residual& residual, const SequenceLayout& layout, CacheUse caches) const {
  const LayerReads& reads = layout.reads(layer_);
  const int64_t H = config_.num_attention_heads;
  Projected out;
  std::vector<at::Tensor*> outputs;
  std::vector<Linear> layers;
  const auto add = [&](at::Tensor& to, const char* name, const std::optional<at::Tensor>& rows = std::nullopt) {
    outputs.push_back(&to);
    layers.push_back({parameter(name), rows});
  };
  add(out.k, "mixer.k_proj.weight");
  add(out.v, "mixer.v_proj.weight");
  // Where nothing recurs, gates are for the caches alone.
  if (const auto mixer = config_.recurrent(); mixer && (reads.recurrent_count > 0 || !caches.written.empty())) {
    add(out.a, "mixer.recurrent.a_proj.weight");
    if (mixer != Mixer::mamba2) add(out.b, "mixer.recurrent.b_proj.weight");
  }
  if (reads.attention_count > 0) add(out.q_attention, "mixer.attention.q_proj.weight", reads.attention);
  if (recurs(reads, caches)) add(out.q_recurrent, "mixer.recurrent.q_proj.weight", reads.recurrent);
  if (reads.count() > 0) add(out.gate, "mixer.gate_proj.weight", reads.wanted);
  const auto order = reads.wanted ? std::nullopt : reads.merge;
  std::vector<at::Tensor> results;
  std::tie(out.x, results) = normed_linears(residual, "mixer_norm.weight", layers, order);
  for (size_t i = 0; i < results.size(); ++i) *outputs[i] = results[i];
  for (at::Tensor* q : {&out.q_attention, &out.q_recurrent, &out.gate})
    if (q->defined()) *q = q->view({q->size(0), H, q->size(1) / H});
  return out;
}

Block::Written Block::write(const Projected& projected, const SequenceLayout& layout, CacheUse caches) const {
  Written out;
  out.k_input = projected.k;
  out.v_input = projected.v;
  std::optional<at::Tensor> k_tails, v_tails;
  if (layout.continues()) {
    std::vector<at::Tensor> k, v;
    for (const Cache* cache : caches.past) k.push_back(cache->key_tail(layer_)), v.push_back(cache->value_tail(layer_));
    k_tails = at::stack(k), v_tails = at::stack(v);
  }
  const at::Tensor& cu_seqlens = layout.cu_seqlens();
  std::tie(out.k, out.k_tail) = convolved(config_, out.k_input, weight(kKeyConv), cu_seqlens, k_tails);
  std::tie(out.v, out.v_tail) = convolved(config_, out.v_input, weight(kValueConv), cu_seqlens, v_tails);
  out.k = ops::unit_norm(out.k, kUnitEps);
  if (projected.a.defined()) {
    const auto acc = ops::accumulate_type(model_.compute_type());
    const at::Tensor dt = at::softplus(projected.a.to(acc) + parameter("mixer.recurrent.dt_bias"), 1, 40);
    out.g = -parameter("mixer.recurrent.A_log").exp() * dt;
    out.w = projected.b.defined() ? projected.b.to(acc).sigmoid() : dt;
  }
  return out;
}

at::Tensor Block::attention(const at::Tensor& q, const Written& written, const SequenceLayout& layout,
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
  return ops::attention_of(
      [eps = config_.rms_norm_eps](const std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
        return {ops::rms_norm(in[0], in[1], eps), in[2], in[3]};
      },
      {q, attention_scale(), k, v}, layout.key_cu_seqlens(), reads.attention_keys, 1.0, config_.rope_theta);
}

at::Tensor Block::attention_alone(const Projected& projected, const SequenceLayout& layout) const {
  const auto function = [config = config_, cu_seqlens = layout.cu_seqlens()](
                            const std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    return {ops::rms_norm(in[0], in[1], config.rms_norm_eps),
            ops::unit_norm(std::get<0>(convolved(config, in[2], in[3], cu_seqlens)), kUnitEps),
            std::get<0>(convolved(config, in[4], in[5], cu_seqlens))};
  };
  return ops::attention_of(
      function,
      {projected.q_attention, attention_scale(), projected.k, weight(kKeyConv), projected.v, weight(kValueConv)},
      layout.key_cu_seqlens(), layout.reads(layer_).attention_keys, 1.0, config_.rope_theta);
}

at::Tensor Block::recurrent(at::Tensor q, const Written& written, const SequenceLayout& layout, CacheUse caches,
                            at::Tensor& final_state) const {
  const LayerReads& reads = layout.reads(layer_);
  const int64_t H = config_.num_attention_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
  const bool mamba2 = config_.recurrent() == Mixer::mamba2;
  if (mamba2)
    q = ops::rms_norm(q, parameter("mixer.recurrent.scale").unsqueeze(-1), config_.rms_norm_eps, scale);
  else
    q = ops::unit_norm(q, kUnitEps, scale, config_.query_activation);
  std::optional<at::Tensor> initial;
  if (layout.continues()) {
    std::vector<at::Tensor> states;
    for (const Cache* cache : caches.past) states.push_back(cache->state(layer_));
    initial = at::stack(states);
  }
  const bool in_part = config_.mixers.size() > 1 && model_.key_gradient() != 1;
  const at::Tensor k = in_part ? PartFunction::apply(written.k, model_.key_gradient()) : written.k;
  at::Tensor o;
  std::tie(o, final_state) =
      run_recurrence(config_, q, k, written.v, written.g, written.w, layout.cu_seqlens(), initial, reads.recurrent);
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
    caches[b]->stage(layer_,
                     Cache::Rows{rows(written.k), rows(written.v), rows(written.g), rows(written.w),
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

// A cache keeps its state up with every token, also where attention serves them all.
bool Block::recurs(const LayerReads& reads, CacheUse caches) {
  return reads.recurrent_count > 0 || (!caches.written.empty() && caches.written[0]->has_state());
}

Residual Block::forward(const Residual& residual, const SequenceLayout& layout, CacheUse caches) const {
  const LayerReads& reads = layout.reads(layer_);
  const Projected projected = project(residual, layout, caches);
  const bool recurring = recurs(reads, caches);
  Written written;
  at::Tensor by_attention, by_recurrence, final_state;
  if (!recurring && caches.past.empty() && caches.written.empty()) {  // only attention reads keys and values
    if (reads.attention_count > 0) by_attention = attention_alone(projected, layout);
  } else {
    written = write(projected, layout, caches);
    if (!caches.written.empty()) stage_rows(written, layout, caches.written);
    if (reads.attention_count > 0) by_attention = attention(projected.q_attention, written, layout, caches);
  }
  if (recurring) by_recurrence = recurrent(projected.q_recurrent, written, layout, caches, final_state);
  if (!caches.written.empty()) stage_ends(written, final_state, caches.written);
  if (reads.count() == 0) return {projected.x.slice(0, 0, 0), {}};
  const at::Tensor o = reads.merge
                           ? OrderFunction::apply(at::cat({by_attention, by_recurrence}), *reads.merge, *reads.unmerge)
                       : reads.attention_count > 0 ? by_attention
                                                   : by_recurrence;
  const auto gated = [eps = config_.rms_norm_eps](const std::vector<at::Tensor>& in) {
    return ops::gated_rms_norm(in[0], in[1], in[2], eps).view({in[0].size(0), -1});
  };
  const auto swiglu = [](const std::vector<at::Tensor>& in) { return ops::swiglu(in[0], in[1]); };
  const Residual mixed{
      rows(projected.x, reads.wanted),
      linears(gated, {o, projected.gate, weight("mixer.o_norm.weight")}, {{parameter("mixer.o_proj.weight")}})[0]};
  const auto [y, gate_and_up] = normed_linears(
      mixed, "mlp_norm.weight", {{parameter("mlp.gate_proj.weight")}, {parameter("mlp.up_proj.weight")}});
  return {y, linears(swiglu, gate_and_up, {{parameter("mlp.down_proj.weight")}})[0]};
}

}  // namespace oryx
