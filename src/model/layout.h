#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "model/schedule.h"

namespace oryx {

// One of the sequences that are run together: its new tokens are schedule.length() many, and `offset` earlier ones are
// in its cache (0: the sequence begins here).
struct SequenceSpec {
  MixerSchedule schedule;
  int64_t offset = 0;
};

// Which tokens a layer serves in which mode.
struct LayerReads {
  // Packed tokens (int64, ascending) served by each mode; absent when it serves all of them. The counts say which.
  std::optional<at::Tensor> attention, recurrent;
  int64_t attention_count = 0, recurrent_count = 0;
  // Of the rows [attention's; recurrent's], the one of each token, int64 [N], and the reverse; absent unless both modes
  // serve tokens.
  std::optional<at::Tensor> merge, unmerge;
  // The tokens in attention as places among the packed keys (cached and new); absent when every key is read.
  std::optional<at::Tensor> attention_keys;
  // The tokens whose outputs are wanted, when not all are (int64, ascending); the counts and `merge` are then of these.
  std::optional<at::Tensor> wanted;
  int64_t count() const { return attention_count + recurrent_count; }
};

// B sequences laid end to end as N packed tokens: what every operation on them needs to know. Nothing leaks from one
// sequence to the next.
class SequenceLayout {
 public:
  // Each schedule's overrides must name layers below num_layers. `wanted`, packed tokens in ascending order, are those
  // whose hidden states are asked for (absent: all): the last layer then computes the others' keys, values and gates
  // alone.
  SequenceLayout(std::vector<SequenceSpec> sequences, int64_t num_layers, at::Device device = at::kCPU,
                 const std::optional<std::vector<int64_t>>& wanted = std::nullopt);

  int64_t num_tokens() const { return begins_.back(); }
  int64_t num_sequences() const { return static_cast<int64_t>(sequences_.size()); }
  const std::vector<SequenceSpec>& sequences() const { return sequences_; }
  const std::vector<int64_t>& begins() const { return begins_; }        // [B + 1], first packed token of each sequence
  const at::Tensor& cu_seqlens() const { return cu_seqlens_; }          // int32 [B + 1], of the new tokens
  const at::Tensor& key_cu_seqlens() const { return key_cu_seqlens_; }  // int32 [B + 1], of cached and new tokens
  bool continues() const { return continues_; }                         // some sequence has tokens in its cache
  const LayerReads& reads(int64_t layer) const { return reads_[reads_of_layer_[layer]]; }

 private:
  LayerReads make_reads(int64_t layer, at::Device device, const std::vector<int64_t>* wanted) const;

  std::vector<SequenceSpec> sequences_;
  std::vector<int64_t> begins_{0}, key_begins_{0};
  at::Tensor cu_seqlens_, key_cu_seqlens_;
  bool continues_ = false;
  std::vector<LayerReads> reads_;  // one for all layers, and one for each with an override
  std::vector<size_t> reads_of_layer_;
};

}  // namespace oryx
