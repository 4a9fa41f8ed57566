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
  std::vector<AttentionMerge> merges;
  int64_t partial_rows = 0;

  AttentionForwardPlan(const Packing& packing, int64_t heads, int64_t kv_heads) {
    // Where one block holds all rows of a sequence (decoding), its keys are cut into segments of this many; their
    // partial results take less room than the keys. All heads take a segment before the next one, whose pages would
    // else fall out of the translation cache between two heads.
    constexpr int64_t kSegment = 256;
    const int64_t group = heads / kv_heads;
    for (int64_t b = 0; b < packing.sequences(); ++b) {
      const int64_t stacked = (packing.rows[b + 1] - packing.rows[b]) * group;
      if (stacked == 0) continue;
      for (int64_t c = 0; c < kv_heads; ++c) {
        for (int64_t i = 0; i < stacked; i += kAttentionRows) {
          const int64_t count = std::min(kAttentionRows, stacked - i), begin = packing.tokens[b];
          const int64_t end = packing.token_of(packing.rows[b] + (i + count - 1) / group) + 1;
          if (stacked > kAttentionRows || end - begin <= kSegment) {
            units.push_back({b, c, i, count, begin, end, -1});
            continue;
          }
          merges.push_back({b, c, count, partial_rows, 0});
          for (int64_t t = begin; t < end; t += kSegment, partial_rows += count, ++merges.back().segments)
            units.push_back({b, c, i, count, t, std::min(t + kSegment, end), partial_rows});
        }
      }
    }
    std::stable_sort(units.begin(), units.end(), [](const AttentionUnit& x, const AttentionUnit& y) {
      const int64_t a = x.key_end - x.key_begin, b = y.key_end - y.key_begin;
      return a != b ? a > b : x.key_begin < y.key_begin;
    });
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
        for (int64_t t = packing.tokens[b], index = 0; t < packing.tokens[b + 1]; t += kAttentionKeys, ++index)
          units.push_back({b, c, t, std::min(t + kAttentionKeys, packing.tokens[b + 1]), index, turns});
        turns += (stacked + kAttentionRows - 1) / kAttentionRows;
      }
    }
    std::stable_sort(units.begin(), units.end(),
                     [](const AttentionKeyBlock& x, const AttentionKeyBlock& y) { return x.index < y.index; });
  }
};

}  // namespace oryx::ops
