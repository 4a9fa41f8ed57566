#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "model/language_model.h"
#include "train/bucket_layout.h"
#include "train/process_group.h"

namespace oryx {

// Data parallel training with the optimizer's state sharded (ZeRO stage 1: Rajbhandari et al., arXiv 1910.02054). Every
// rank has all weights and, while it steps, all gradients, as views into flat buckets (BucketLayout). Each bucket's
// gradients are summed by one reduce-scatter, begun as soon as the backward pass has the last of them; then rank r has
// the sums of slice r, updates the weights in it with moments that it alone has, and one all-gather gives the new
// weights to all.
//
// One partition serves AdamW and Muon: slices are equal to the element, whatever the matrices' sizes and the number of
// ranks, so that memory and traffic are balanced, and all that is done element by element (moments, momentum, decay)
// needs nothing else. Only Muon's orthogonalization wants whole matrices: each has one rank to which its pieces travel
// and from which they return (`on_whole`). A piece goes both ways once, which over R ranks is 1/R of what the
// gradients' reduction moves. Giving whole matrices to ranks from the start would save that, but leaves ranks without
// work as soon as there are more of them than matrices of one size.
class ShardedWeights {
 public:
  // The model's weights move into the buckets. `whole`: for each weight, whether on_whole will be asked for it.
  ShardedWeights(const LanguageModel& model, const std::vector<bool>& whole, ProcessGroup& group);
  ShardedWeights(const ShardedWeights&) = delete;
  ShardedWeights& operator=(const ShardedWeights&) = delete;
  ~ShardedWeights();

  // A step: begin_step; backward passes, before the last one of which reduce_in_backward; finish_reduction.
  void begin_step();
  void reduce_in_backward(const SequenceLayout& layout);  // that the backward pass will go through
  // Afterwards pieces of gradients are sums over ranks; so are `values`, which travel along.
  void finish_reduction(std::vector<double>& values);
  void gather();     // every rank's slices of the weights, to all
  void broadcast();  // rank 0's weights, to all

  // This rank's part of weight i and of its gradient, flat, perhaps empty.
  at::Tensor piece(size_t i) const { return cut(i, &Bucket::weights); }
  at::Tensor gradient_piece(size_t i) const { return cut(i, &Bucket::gradients); }
  // Whether weight i has a gradient on any rank, after finish_reduction.
  bool has_gradient(size_t i) const { return present_[i] > 0; }
  // This rank's slices of all gradients; what lies between the weights is 0.
  std::vector<at::Tensor> gradient_slices() const;

  // f of whole matrices, given and returned in pieces. Entry i is that of weight i, undefined: left out (everywhere).
  using MatricesToMatrices = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;
  std::vector<at::Tensor> on_whole(const std::vector<at::Tensor>& pieces, const MatricesToMatrices& f) const;

  // For checkpoints: on rank 0 the whole tensors on the CPU, elsewhere undefined ones; and back.
  std::vector<at::Tensor> collect(const std::vector<at::Tensor>& pieces) const;
  void distribute(const std::vector<at::Tensor>& whole, const std::vector<at::Tensor>& pieces) const;

  ProcessGroup& group() const { return group_; }
  size_t buckets() const { return buckets_.size(); }
  size_t reductions_begun() const { return begun_; }  // in this step

 private:
  struct Bucket {
    BucketLayout layout;
    at::Tensor weights, gradients;  // [layout.size]
    int64_t missing = 0;            // gradients, until the reduction can begin
    ProcessGroup::Wait reduced;
  };
  struct Place {
    size_t bucket, entry;
  };
  struct Hook;

  void gradient_arrived(size_t i);
  void begin_reductions();
  at::Tensor cut(size_t i, at::Tensor Bucket::*buffer) const;
  int64_t piece_size(size_t i, int rank) const;
  void choose_owners(const std::vector<bool>& whole);

  std::vector<WeightSpec> specs_;
  std::vector<at::Tensor> weights_;
  ProcessGroup& group_;
  std::vector<Bucket> buckets_;
  std::vector<Place> places_;  // of each weight
  std::vector<int> owners_;    // the rank that has a weight whole in on_whole; -1: none
  bool reducing_ = false;
  size_t begun_ = 0;  // buckets whose reduction has begun; in order, since all ranks must agree on it
  std::vector<bool> awaited_;
  std::vector<double> present_;
};

}  // namespace oryx
