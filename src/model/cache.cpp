#include "model/cache.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "model/recurrence.h"
#include "ops/common/packing.h"

namespace oryx {

Cache::Cache(const ModelConfig& config, at::ScalarType dtype, at::Device device, Options options)
    : config_(config),
      has_state_(config.has(Mode::recurrent)),
      has_inputs_(options.keep_inputs),
      layers_(static_cast<size_t>(config.num_hidden_layers)) {
  const int64_t Hkv = config.num_key_value_heads, Kd = config.head_dim, Vd = config.value_head_dim;
  const auto like = at::TensorOptions().dtype(dtype).device(device);
  const auto acc = like.dtype(ops::accumulate_type(dtype));
  for (Layer& layer : layers_) {
    layer.k = at::empty({0, Hkv, Kd}, like);
    layer.v = at::empty({0, Hkv, Vd}, like);
    layer.k_tail = at::zeros({Hkv * Kd, config.conv_kernel - 1}, like);
    layer.v_tail = at::zeros({Hkv * Vd, config.conv_kernel - 1}, like);
    if (has_inputs_) {
      layer.k_input = at::empty({0, Hkv * Kd}, like);
      layer.v_input = at::empty({0, Hkv * Vd}, like);
    }
    if (!has_state_) continue;
    layer.g = at::empty({0, Hkv}, acc);
    layer.w = at::empty({0, Hkv}, acc);
    layer.state = at::zeros({Hkv, Kd, Vd}, acc);
  }
}

static auto all_of(auto& layer) {
  return std::array{&layer.k,       &layer.v,      &layer.g,      &layer.w,    &layer.k_input,
                    &layer.v_input, &layer.k_tail, &layer.v_tail, &layer.state};
}

Cache Cache::clone() const {
  Cache copy = *this;
  for (Layer& layer : copy.layers_)
    for (at::Tensor* x : all_of(layer))
      if (x->defined()) *x = x->clone();
  return copy;
}

Cache Cache::fork() const {
  Cache copy = *this;
  // Without spare room the next append must move to a buffer of its own; tails and states are replaced, never written.
  for (Layer& layer : copy.layers_)
    for (at::Tensor* x : {&layer.k, &layer.v, &layer.g, &layer.w, &layer.k_input, &layer.v_input})
      if (x->defined()) *x = x->slice(0, 0, length_);
  return copy;
}

int64_t Cache::bytes() const {
  int64_t total = 0;
  for (Layer layer : layers_)
    for (at::Tensor* x : all_of(layer))
      if (x->defined()) total += static_cast<int64_t>(x->nbytes());
  return total;
}

at::Tensor Cache::view(const at::Tensor& buffer, int64_t staged) const {
  require(has_kv_, "the cache's keys and values were dropped, and attention, replay and truncation need them");
  return buffer.slice(0, 0, length_ + staged);
}

const at::Tensor& Cache::state(int64_t layer) const {
  require(has_state_, "the cache's recurrent state was dropped; rebuild_state() replays it from keys and values");
  return layers_[layer].state;
}

void Cache::drop_kv() {
  for (Layer& layer : layers_)
    for (at::Tensor* x : {&layer.k, &layer.v, &layer.g, &layer.w, &layer.k_input, &layer.v_input}) *x = at::Tensor();
  has_kv_ = has_inputs_ = false;
}

void Cache::drop_state() {
  for (Layer& layer : layers_) layer.state = at::Tensor();
  has_state_ = false;
}

void Cache::rebuild_state() {
  require(config_.has(Mode::recurrent), "the model has no recurrent mixer, so its cache has no state");
  auto states = state_at(length_);
  for (size_t i = 0; i < layers_.size(); ++i) layers_[i].state = states[i];
  has_state_ = true;
}

std::vector<at::Tensor> Cache::state_at(int64_t n) const {
  require(config_.has(Mode::recurrent), "the model has no recurrent mixer, so its cache has no state");
  require(n >= 0 && n <= length_, "the state after {} tokens was asked for, but the cache holds {}", n, length_);
  std::vector<at::Tensor> states;
  for (const Layer& layer : layers_) {
    if (n == length_ && has_state_) {
      states.push_back(layer.state.clone());
      continue;
    }
    const at::Tensor k = view(layer.k).slice(0, 0, n), v = view(layer.v).slice(0, 0, n);
    const at::Tensor cu = at::tensor({int32_t{0}, static_cast<int32_t>(n)}, at::kInt).to(k.device());
    const at::Tensor none = at::empty({0}, k.options().dtype(at::kLong));
    const at::Tensor q = at::empty({0, config_.num_attention_heads, config_.head_dim}, k.options());
    states.push_back(std::get<1>(run_recurrence(config_, q, k, v, layer.g.slice(0, 0, n), layer.w.slice(0, 0, n), cu,
                                                std::nullopt, none))
                         .squeeze(0));
  }
  return states;
}

at::Tensor Cache::tail_at(const at::Tensor& inputs, int64_t n) const {
  const int64_t width = config_.conv_kernel - 1, have = std::min(n, width);
  const at::Tensor rows = inputs.slice(0, n - have, n).t();
  return at::cat({at::zeros({inputs.size(1), width - have}, inputs.options()), rows}, 1).contiguous();
}

void Cache::truncate(int64_t n) {
  require(n >= 0 && n <= length_, "the cache holds {} tokens and cannot be truncated to {}", length_, n);
  if (n == length_) return;
  require(has_kv_, "the cache's keys and values were dropped, and truncation needs them");
  require(has_inputs_, "the cache was made without the convolutions' inputs, and truncation needs them");
  std::vector<at::Tensor> states;
  if (has_state_) states = state_at(n);
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].k_tail = tail_at(layers_[i].k_input, n);
    layers_[i].v_tail = tail_at(layers_[i].v_input, n);
    if (has_state_) layers_[i].state = states[i];
  }
  length_ = n;
}

void Cache::Copies::add(const at::Tensor& to, const at::Tensor& from) {
  auto group = std::ranges::find(groups_, to.scalar_type(), &Group::type);
  if (group == groups_.end()) group = groups_.insert(group, Group{to.scalar_type(), {}, {}});
  group->to.push_back(to), group->from.push_back(from);
}

void Cache::Copies::run() const {
  for (const Group& group : groups_) at::_foreach_copy_(group.to, group.from);
}

void Cache::append(at::Tensor& buffer, const at::Tensor& rows, Copies& copies) const {
  if (!buffer.defined()) return;
  const int64_t needed = length_ + rows.size(0);
  if (buffer.size(0) < needed) {
    auto shape = buffer.sizes().vec();
    shape[0] = std::max(needed, buffer.size(0) * 2);
    at::Tensor larger = at::empty(shape, buffer.options());
    if (length_ > 0) copies.add(larger.slice(0, 0, length_), buffer.slice(0, 0, length_));
    buffer = std::move(larger);
  }
  copies.add(buffer.slice(0, length_, needed), rows);
}

void Cache::stage(int64_t index, const Rows& rows, Copies& copies) {
  Layer& layer = layers_[index];
  append(layer.k, rows.k, copies);
  append(layer.v, rows.v, copies);
  append(layer.g, rows.g, copies);
  append(layer.w, rows.w, copies);
  append(layer.k_input, rows.k_input, copies);
  append(layer.v_input, rows.v_input, copies);
}

void Cache::stage(int64_t index, const Ends& ends) {
  Layer& layer = layers_[index];
  layer.next_k_tail = ends.k_tail;
  layer.next_v_tail = ends.v_tail;
  layer.next_state = ends.state;
}

void Cache::commit(int64_t n) {
  for (Layer& layer : layers_) {
    layer.k_tail = std::exchange(layer.next_k_tail, at::Tensor());
    layer.v_tail = std::exchange(layer.next_v_tail, at::Tensor());
    if (has_state_) layer.state = std::exchange(layer.next_state, at::Tensor());
  }
  length_ += n;
}

}  // namespace oryx
