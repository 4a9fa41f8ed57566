#pragma once

// Which units of work an attention call is cut into. Depends on each sequence alone, never on the number of threads or
// on the other sequences, so that neither does the result.

#include <algorithm>
#include <vector>

#include "ops/attention/cpu.h"
#include "ops/common/packing.h"

namespace oryx::ops {

struct AttentionForwardPlan {
  std::vector<AttentionUnit> units;  // the longest first
  std::vector<AttentionSegment> segments;
  std::vector<AttentionMerge> merges;
  int64_t partial_rows = 0;

  AttentionForwardPlan(const Packing& packing, int64_t heads, int64_t kv_heads) {
    const int64_t group = heads / kv_heads;
    for (int64_t b = 0; b < packing.sequences(); ++b) {
      const int64_t stacked = (packing.rows[b + 1] - packing.rows[b]) * group;
      if (stacked == 0) continue;
      if (stacked <= kFewRows) {
        add_segments(b, packing.tokens[b], packing.token_of(packing.rows[b + 1] - 1) + 1, stacked, kv_heads);
        continue;
      }
      for (int64_t c = 0; c < kv_heads; ++c) {
        for (int64_t i = 0; i < stacked; i += kAttentionRows) {
          const int64_t count = std::min(kAttentionRows, stacked - i), begin = packing.tokens[b];
          units.push_back({b, c, i, count, begin, packing.token_of(packing.rows[b] + (i + count - 1) / group) + 1});
        }
      }
    }
    std::stable_sort(units.begin(), units.end(), [](const AttentionUnit& x, const AttentionUnit& y) {
      return x.key_end - x.key_begin > y.key_end - y.key_begin;
    });
  }

 private:
  void add_segments(int64_t sequence, int64_t begin, int64_t end, int64_t stacked, int64_t kv_heads) {
    const bool whole = end - begin <= kAttentionKeys;
    for (int64_t c = 0; !whole && c < kv_heads; ++c)
      merges.push_back({sequence, c, partial_rows, (end - begin + kAttentionKeys - 1) / kAttentionKeys});
    for (int64_t t = begin; t < end; t += kAttentionKeys) {
      segments.push_back({sequence, t, std::min(t + kAttentionKeys, end), whole ? -1 : partial_rows});
      if (!whole) partial_rows += stacked * kv_heads;
    }
  }
};

struct AttentionBackwardPlan {
  std::vector<AttentionKeyBlock> units;
  int64_t turns = 0;  // counters

  // The first blocks of all sequences and heads, then the second ones: neighbours in the list seldom share queries.
  AttentionBackwardPlan(const Packing& packing, int64_t heads, int64_t kv_heads) {
    const int64_t group = heads / kv_heads;
    for (int64_t b = 0; b < packing.sequences(); ++b) {
      const int64_t stacked = (packing.rows[b + 1] - packing.rows[b]) * group;
      for (int64_t c = 0; c < kv_heads; ++c) {
        for (int64_t t = packing.tokens[b], index = 0; t < packing.tokens[b + 1]; t += kAttentionBackwardKeys, ++index)
          units.push_back({b, c, t, std::min(t + kAttentionBackwardKeys, packing.tokens[b + 1]), index, turns});
        turns += (stacked + kAttentionRows - 1) / kAttentionRows;
      }
    }
    std::stable_sort(units.begin(), units.end(),
                     [](const AttentionKeyBlock& x, const AttentionKeyBlock& y) { return x.index < y.index; });
  }
};

}  // namespace oryx::ops
