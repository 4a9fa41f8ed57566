#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/common/chunk_places.h"
#include "ops/common/packing.h"

namespace oryx::ops {

// Packed sequences cut into chunks of `size` tokens, each sequence's last one padded. Chunks are listed step by step:
// the first chunk of every sequence that has one, then the second ones, and so on, longest sequences first. The chunks
// of a step are then one slice, and their sequences the first of those of the step before, so that a recurrence over
// states is one batched operation per step, without a copy.
class ChunkList {
 public:
  ChunkList(const Packing& packing, int64_t size, at::Device device);
  static ChunkList of(const Packing& packing, int64_t size, at::Device device);  // remembered with the packing

  int64_t size() const { return size_; }
  int64_t sequences() const { return sequences_; }
  int64_t tokens() const { return tokens_; }
  int64_t steps() const { return static_cast<int64_t>(first_.size()) - 1; }
  int64_t count() const { return first_.back(); }
  int64_t first(int64_t step) const { return first_[step]; }  // chunk
  // first() of all steps and count(), int64 [steps + 1] on the device; undefined where all steps have as many chunks.
  const at::Tensor& uneven_firsts() const { return uneven_firsts_; }
  int64_t count(int64_t step) const { return first_[step + 1] - first_[step]; }  // chunks, 0 behind the last step
  int64_t next_count(int64_t step) const { return step + 1 < steps() ? count(step + 1) : 0; }

  // Copies x [N, heads, group, dim] to `to` [chunks, heads, group, size, dim], zero where there is no token; and back,
  // to [N, heads * group, dim] in `type`.
  void cut(const at::Tensor& x, const at::Tensor& to) const;
  at::Tensor join(const at::Tensor& x, at::ScalarType type) const;

  // Per-sequence rows [B, ...] in the list's order of sequences, and back.
  at::Tensor sorted(const at::Tensor& x) const;
  // Rows of `states` [B + chunks, ...], the sequences' first states (sorted) and then each chunk's last: what each
  // chunk begins with, what it ends with, and what each sequence (in its own order) ends with.
  at::Tensor begins(const at::Tensor& states) const;
  at::Tensor ends(const at::Tensor& states) const { return states.slice(0, sequences_); }
  at::Tensor finals(const at::Tensor& states) const;
  // Likewise for `grads` [chunks + B, ...], the gradient of each chunk's first state and then those of the sequences'
  // last ones (sorted): the gradient of each chunk's last state, and of each sequence's first.
  at::Tensor end_grads(const at::Tensor& grads) const;
  at::Tensor initial_grads(const at::Tensor& grads) const;

  // Where tokens stand, for kernels; tensors are undefined, pointers null, when all sequences have one length.
  cuda::Placement placement() const;
  const at::Tensor& order() const { return order_; }  // [B] the sequence of each place in the list's order, likewise

 private:
  int64_t size_, sequences_, tokens_, uniform_ = 0;  // uniform: the length of all sequences when they have one
  std::vector<int64_t> first_{0};                    // [steps + 1]
  at::Tensor uneven_firsts_;
  // Absent for uniform lengths, where slices do. places [chunks * size]: the token of each place (N: none); where [N]:
  // the place of each token.
  at::Tensor places_, where_, order_, begin_rows_, final_rows_, end_grad_rows_, initial_grad_rows_;
};

}  // namespace oryx::ops
