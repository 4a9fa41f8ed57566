#include "train/sharded_weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace oryx {

struct ShardedWeights::Hook : torch::autograd::PostAccumulateGradHook {
  Hook(ShardedWeights* to, size_t weight) : shards(to), i(weight) {}
  void operator()(const at::Tensor&) override { shards->gradient_arrived(i); }
  ShardedWeights* shards;
  size_t i;
};

ShardedWeights::ShardedWeights(const LanguageModel& model, const std::vector<bool>& whole, ProcessGroup& group)
    : specs_(weight_specs(model.config())), group_(group) {
  std::vector<int64_t> sizes;
  for (const auto& [name, w] : model.weights()) {
    weights_.push_back(w);
    sizes.push_back(w.numel());
  }
  places_.resize(weights_.size());
  present_.resize(weights_.size());
  awaited_.resize(weights_.size());
  c10::NoGradGuard no_grad;
  // Muon keeps one moment where AdamW keeps two.
  for (BucketLayout& layout : lay_out_buckets(sizes, whole, group.size())) {
    const at::Tensor zeros = at::zeros({layout.size}, weights_.front().options().requires_grad(false));
    Bucket bucket{std::move(layout), zeros, at::zeros_like(zeros), 0, nullptr};
    for (size_t e = 0; e < bucket.layout.entries.size(); ++e) {
      const auto& [i, begin, end] = bucket.layout.entries[e];
      places_[i] = {buckets_.size(), e};
      at::Tensor view = bucket.weights.slice(0, begin, end).view(weights_[i].sizes());
      view.copy_(weights_[i]);
      weights_[i].set_data(view);
      torch::autograd::impl::set_post_acc_grad_hooks(weights_[i], std::make_unique<Hook>(this, i));
    }
    buckets_.push_back(std::move(bucket));
  }
  choose_owners(whole);
  broadcast();
}

ShardedWeights::~ShardedWeights() {
  for (const at::Tensor& w : weights_) torch::autograd::impl::set_post_acc_grad_hooks(w, nullptr);
}

// The largest first, each to the rank that has least to do (Graham 1969). Orthogonalizing m x n costs m n min(m, n).
void ShardedWeights::choose_owners(const std::vector<bool>& whole) {
  owners_.assign(weights_.size(), -1);
  std::vector<size_t> order;
  for (size_t i = 0; i < weights_.size(); ++i)
    if (whole[i]) order.push_back(i);
  const auto cost = [&](size_t i) {
    return static_cast<double>(weights_[i].numel()) *
           static_cast<double>(std::min(weights_[i].size(0), weights_[i].size(1)));
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cost(a) > cost(b); });
  std::vector<double> load(group_.size());
  for (const size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    owners_[i] = static_cast<int>(least - load.begin());
    *least += cost(i);
  }
}

void ShardedWeights::begin_step() {
  for (Bucket& bucket : buckets_) {
    bucket.gradients.zero_();
    for (const auto& [i, begin, end] : bucket.layout.entries)
      weights_[i].mutable_grad() = bucket.gradients.slice(0, begin, end).view(weights_[i].sizes());
  }
  std::fill(present_.begin(), present_.end(), 0);
  begun_ = 0;
}

void ShardedWeights::reduce_in_backward(const SequenceLayout& layout) {
  const auto uses = [&](Mode mode) {
    return std::any_of(layout.sequences().begin(), layout.sequences().end(),
                       [&](const SequenceSpec& s) { return s.schedule.uses(mode); });
  };
  // A mode that serves no token here leaves its weights without a gradient.
  const bool attention = uses(Mode::attention), recurrent = uses(Mode::recurrent);
  for (Bucket& bucket : buckets_) {
    bucket.missing = 0;
    for (const auto& entry : bucket.layout.entries) {
      const auto use = specs_[entry.weight].use;
      awaited_[entry.weight] =
          (use != WeightSpec::Use::attention || attention) && (use != WeightSpec::Use::recurrent || recurrent);
      bucket.missing += awaited_[entry.weight];
    }
  }
  reducing_ = true;
}

void ShardedWeights::gradient_arrived(size_t i) {
  present_[i] = 1;
  if (!reducing_) return;
  if (places_[i].bucket < begun_) throw std::logic_error("a gradient came after its reduction: " + specs_[i].name);
  if (!awaited_[i]) return;
  awaited_[i] = false;
  buckets_[places_[i].bucket].missing -= 1;
  begin_reductions();
}

void ShardedWeights::begin_reductions() {
  for (; begun_ < buckets_.size() && buckets_[begun_].missing == 0; ++begun_)
    buckets_[begun_].reduced = group_.reduce_scatter(buckets_[begun_].gradients);
}

void ShardedWeights::finish_reduction(std::vector<double>& values) {
  for (Bucket& bucket : buckets_) bucket.missing = 0;
  begin_reductions();
  reducing_ = false;
  std::vector<double> all = present_;
  all.insert(all.end(), values.begin(), values.end());
  group_.sum(all);
  const auto own = all.begin() + static_cast<std::ptrdiff_t>(present_.size());
  std::copy(all.begin(), own, present_.begin());
  std::copy(own, all.end(), values.begin());
  for (Bucket& bucket : buckets_) {
    bucket.reduced();
    bucket.reduced = nullptr;  // and with it what the operation kept in memory
  }
}

void ShardedWeights::gather() {
  std::vector<ProcessGroup::Wait> gathered;
  for (const Bucket& bucket : buckets_) gathered.push_back(group_.all_gather(bucket.weights));
  for (const auto& wait : gathered) wait();
}

void ShardedWeights::broadcast() {
  for (const Bucket& bucket : buckets_) group_.broadcast(bucket.weights);
}

at::Tensor ShardedWeights::cut(size_t i, at::Tensor Bucket::*buffer) const {
  const Bucket& bucket = buckets_[places_[i].bucket];
  const auto part = part_in_slice(bucket.layout, bucket.layout.entries[places_[i].entry], group_.size(), group_.rank());
  return (bucket.*buffer).slice(0, part.begin, part.end);
}

int64_t ShardedWeights::piece_size(size_t i, int rank) const {
  const Bucket& bucket = buckets_[places_[i].bucket];
  const auto part = part_in_slice(bucket.layout, bucket.layout.entries[places_[i].entry], group_.size(), rank);
  return part.end - part.begin;
}

std::vector<at::Tensor> ShardedWeights::gradient_slices() const {
  std::vector<at::Tensor> slices;
  for (const Bucket& bucket : buckets_) slices.push_back(bucket.gradients.chunk(group_.size())[group_.rank()]);
  return slices;
}

std::vector<at::Tensor> ShardedWeights::on_whole(const std::vector<at::Tensor>& pieces,
                                                 const MatricesToMatrices& f) const {
  const int ranks = group_.size(), own_rank = group_.rank();
  // Out: to each owner the pieces of its matrices, in their order.
  std::vector<int64_t> out_counts(ranks), in_counts(ranks);
  std::vector<at::Tensor> out;
  std::vector<size_t> sent, owned;
  for (int r = 0; r < ranks; ++r)
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (!pieces[i].defined() || owners_[i] != r) continue;
      out.push_back(pieces[i]);
      sent.push_back(i);
      out_counts[r] += pieces[i].numel();
      if (r == own_rank) owned.push_back(i);
    }
  for (int r = 0; r < ranks; ++r)
    for (const size_t i : owned) in_counts[r] += piece_size(i, r);
  if (out.empty()) return std::vector<at::Tensor>(pieces.size());
  const at::Tensor in = group_.all_to_all(at::cat(out), out_counts, in_counts);
  // In: from each rank its pieces of the matrices owned here. Pieces of rising ranks make up a matrix.
  std::vector<int64_t> next(ranks);  // of each rank, the beginning of its next piece
  std::exclusive_scan(in_counts.begin(), in_counts.end(), next.begin(), int64_t{0});
  const std::vector<int64_t> first = next;
  std::vector<at::Tensor> matrices;
  for (const size_t i : owned) {
    std::vector<at::Tensor> parts(ranks);
    for (int r = 0; r < ranks; ++r) {
      parts[r] = in.narrow(0, next[r], piece_size(i, r));
      next[r] += piece_size(i, r);
    }
    matrices.push_back(at::cat(parts).view(weights_[i].sizes()));
  }
  const std::vector<at::Tensor> done = f(matrices);
  const at::Tensor back = at::empty_like(in);
  next = first;
  for (size_t k = 0; k < owned.size(); ++k) {
    const at::Tensor result = done[k].reshape(-1);
    for (int64_t r = 0, begin = 0; r < ranks; ++r) {
      const int64_t size = piece_size(owned[k], static_cast<int>(r));
      back.narrow(0, next[r], size).copy_(result.narrow(0, begin, size));
      begin += size, next[r] += size;
    }
  }
  const at::Tensor returned = group_.all_to_all(back, in_counts, out_counts);
  std::vector<at::Tensor> results(pieces.size());
  int64_t begin = 0;
  for (const size_t i : sent) {
    results[i] = returned.narrow(0, begin, pieces[i].numel());
    begin += pieces[i].numel();
  }
  return results;
}

std::vector<at::Tensor> ShardedWeights::collect(const std::vector<at::Tensor>& pieces) const {
  std::vector<at::Tensor> whole(pieces.size());
  for (const Bucket& bucket : buckets_) {
    if (!pieces[bucket.layout.entries.front().weight].defined()) continue;
    const at::Tensor flat = at::empty_like(bucket.weights);
    for (const auto& entry : bucket.layout.entries) {
      const auto part = part_in_slice(bucket.layout, entry, group_.size(), group_.rank());
      flat.slice(0, part.begin, part.end).copy_(pieces[entry.weight]);
    }
    group_.all_gather(flat)();
    if (!group_.first()) continue;
    for (const auto& [i, begin, end] : bucket.layout.entries)
      whole[i] = flat.slice(0, begin, end).view(weights_[i].sizes()).to(at::kCPU, at::kFloat, false, /*copy=*/true);
  }
  return whole;
}

void ShardedWeights::distribute(const std::vector<at::Tensor>& whole, const std::vector<at::Tensor>& pieces) const {
  for (const Bucket& bucket : buckets_) {
    if (!pieces[bucket.layout.entries.front().weight].defined()) continue;
    const at::Tensor flat = at::empty_like(bucket.weights);
    for (const auto& [i, begin, end] : bucket.layout.entries)
      if (group_.first()) flat.slice(0, begin, end).view(weights_[i].sizes()).copy_(whole[i]);
    group_.broadcast(flat);
    for (const auto& entry : bucket.layout.entries) {
      const auto part = part_in_slice(bucket.layout, entry, group_.size(), group_.rank());
      pieces[entry.weight].copy_(flat.slice(0, part.begin, part.end));
    }
  }
}

}  // namespace oryx
