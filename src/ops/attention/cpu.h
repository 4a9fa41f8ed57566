#pragma once

#include <cstdint>

#include "ops/common/isa.h"

namespace oryx::ops {

// Query rows are stacked: the H / Hkv heads that read one key/value head are rows of one matrix. Stacked row i of
// sequence b and key/value head c is query row rows[b] + i / group, head c * group + i % group, with group = H / Hkv.
inline constexpr int64_t kAttentionRows = 128;  // stacked rows of a block
inline constexpr int64_t kAttentionKeys = 64;   // keys of a block
// Keys of a block of the backward pass, which reads all rows and adds to their gradients once for each block.
inline constexpr int64_t kAttentionBackwardKeys = 128;
// A sequence of at most so many stacked rows has a kernel of its own, with vectors along the head dims.
inline constexpr int64_t kFewRows = 8;

struct AttentionArgs {
  int64_t heads, kv_heads, key_dim, value_dim;
  double scale;
  double rope_base;                     // 0: keys and queries are used as they are; else only for sequences of few rows
  const int64_t *tokens, *rows, *read;  // Packing: [B+1], [B+1], [R] or null
  const void *q, *k, *v;                // storage type: [R, H, Kd], [N, Hkv, Kd], [N, Hkv, Vd]
};

// Forward work: stacked rows [begin, begin + count) against packed keys [key_begin, key_end).
struct AttentionUnit {
  int64_t sequence, kv_head, begin, count, key_begin, key_end;
};

// Forward work for a sequence of few rows: all of them, in all heads, against at most kAttentionKeys keys. Where these
// are not all keys, the result waits in `partial` [kv_heads, stacked rows], from row `partial`, to be merged; else -1.
struct AttentionSegment {
  int64_t sequence, key_begin, key_end, partial;
};
struct AttentionMerge {
  int64_t sequence, kv_head, first, segments;  // `first`: the first segment's row in `partial`
};

struct AttentionForward : AttentionArgs {
  const AttentionUnit* units;
  int64_t num_units;
  const AttentionSegment* segments;
  int64_t num_segments;
  const AttentionMerge* merges;
  int64_t num_merges;
  void* o;         // storage type [R, H, Vd]
  void* residual;  // storage type [R, H, Vd]: what rounding took from o; null where o is not rounded, or not wanted
  // acc [R, H, 2]: the largest logit m, and log of the sum of exp(logit - m). The log-sum-exp is kept in two parts,
  // since in one a logit of 1e4 would leave no digits for its fraction, and the backward pass takes the exp of it.
  void* lse;
  void* partial;  // acc [partial rows, Vd + 2]: unnormalised output, maximum, sum
};

// Backward work: the block of keys [key_begin, key_end), number `index` of its sequence. Units are listed so that the
// blocks of one sequence and head come in order; `turns` is the first of its row blocks' counters.
struct AttentionKeyBlock {
  int64_t sequence, kv_head, key_begin, key_end, index, turns;
};

struct AttentionBackward : AttentionArgs {
  const AttentionKeyBlock* units;
  int64_t num_units;
  int32_t* turns;           // zeros: how many key blocks have added to the gradient of a row block
  const void *lse, *delta;  // acc [R, H, 2] and [R, H]; delta = sum over Vd of o * grad_o
  const void* grad_o;       // storage type [R, H, Vd]
  void* grad_q;             // acc [R, H, Kd], or null
  void *grad_k, *grad_v;    // storage type, or null
};

inline bool few_rows(const AttentionArgs& args, int64_t sequence) {
  return (args.rows[sequence + 1] - args.rows[sequence]) * (args.heads / args.kv_heads) <= kFewRows;
}

ORYX_FOR_EACH_PAIR_ISA(
    // T is the storage type: float, double or Bf16.
    template <typename T> void attention_forward(const AttentionForward& args);
    template <typename T> void attention_backward(const AttentionBackward& args);
    // delta [rows] = sum over dim of (o + residual) * grad_o. With o rounded to bfloat16 alone, the differences from
    // delta would be lost where attention is nearly all on one key. residual may be null.
    template <typename T> void attention_delta(int64_t rows, int64_t dim, const void* o, const void* residual,
                                               const void* grad_o, void* delta);)

}  // namespace oryx::ops
