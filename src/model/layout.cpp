#include "model/layout.h"

#include <set>

#include "base/error.h"
#include "ops/common/packing.h"

namespace oryx {

SequenceLayout::SequenceLayout(std::vector<SequenceSpec> sequences, int64_t num_layers, at::Device device,
                               const std::optional<std::vector<int64_t>>& wanted)
    : sequences_(std::move(sequences)) {
  require(!sequences_.empty(), "a batch needs at least one sequence");
  std::set<int64_t> own;
  for (const auto& s : sequences_) {
    const int64_t end = s.offset + s.schedule.length();
    begins_.push_back(begins_.back() + s.schedule.length());
    key_begins_.push_back(key_begins_.back() + end);
    require(key_begins_.back() <= INT32_MAX, "a batch holds at most {} tokens, cached ones included", INT32_MAX);
    continues_ |= s.offset > 0;
    for (const auto& [layer, spans] : s.schedule.layers()) {
      require(layer < num_layers, "the schedule names layer {}, but the model has {} layers (from 0)", layer,
              num_layers);
      own.insert(layer);
    }
  }
  cu_seqlens_ = ops::upload(begins_, device).to(at::kInt);
  key_cu_seqlens_ = ops::upload(key_begins_, device).to(at::kInt);
  ops::introduce_packing(cu_seqlens_, std::nullopt, begins_, {});
  if (wanted)
    for (size_t i = 0; i < wanted->size(); ++i)
      require((*wanted)[i] >= (i == 0 ? 0 : (*wanted)[i - 1] + 1) && (*wanted)[i] < num_tokens(),
              "the tokens whose hidden states are wanted must be in ascending order and among the {} of the batch",
              num_tokens());
  reads_.push_back(make_reads(-1, device, nullptr));
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const bool partly = wanted && layer == num_layers - 1 && static_cast<int64_t>(wanted->size()) < num_tokens();
    const bool extra = own.count(layer) > 0 || partly;
    if (extra) reads_.push_back(make_reads(own.count(layer) ? layer : -1, device, partly ? &*wanted : nullptr));
    reads_of_layer_.push_back(extra ? reads_.size() - 1 : 0);
  }
}

LayerReads SequenceLayout::make_reads(int64_t layer, at::Device device, const std::vector<int64_t>* wanted) const {
  size_t next = 0;  // of those wanted
  std::vector<int64_t> attention, recurrent, attention_keys, merge, unmerge;
  for (size_t b = 0; b < sequences_.size(); ++b) {
    const auto& s = sequences_[b];
    for (const Span& span : layer < 0 ? s.schedule.common() : s.schedule.spans(layer))
      for (int64_t t = span.begin; t < span.end; ++t) {
        if (wanted) {
          if (next == wanted->size() || (*wanted)[next] != begins_[b] + t) continue;
          ++next;
        }
        auto& rows = span.mode == Mode::attention ? attention : recurrent;
        // Recurrent rows stand behind attention's, whose number is known only at the end.
        merge.push_back(span.mode == Mode::attention ? static_cast<int64_t>(rows.size())
                                                     : ~static_cast<int64_t>(rows.size()));
        rows.push_back(begins_[b] + t);
        if (span.mode == Mode::attention) attention_keys.push_back(key_begins_[b] + s.offset + t);
      }
  }
  LayerReads reads;
  reads.attention_count = static_cast<int64_t>(attention.size());
  reads.recurrent_count = static_cast<int64_t>(recurrent.size());
  unmerge.resize(merge.size());
  for (size_t i = 0; i < merge.size(); ++i) {
    if (merge[i] < 0) merge[i] = reads.attention_count + ~merge[i];
    unmerge[static_cast<size_t>(merge[i])] = static_cast<int64_t>(i);
  }
  if (reads.attention_count < num_tokens()) reads.attention = ops::upload(attention, device);
  if (reads.recurrent_count < num_tokens()) reads.recurrent = ops::upload(recurrent, device);
  if (reads.attention_count > 0 && reads.recurrent_count > 0)
    reads.merge = ops::upload(merge, device), reads.unmerge = ops::upload(unmerge, device);
  if (reads.attention_count < key_begins_.back()) reads.attention_keys = ops::upload(attention_keys, device);
  if (wanted) reads.wanted = ops::upload(*wanted, device);
  if (reads.recurrent) ops::introduce_packing(cu_seqlens_, reads.recurrent, begins_, recurrent);
  if (reads.attention_count > 0)
    ops::introduce_packing(key_cu_seqlens_, reads.attention_keys, key_begins_, attention_keys);
  return reads;
}

}  // namespace oryx
