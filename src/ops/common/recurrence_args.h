#pragma once

#include <cstdint>

namespace oryx::ops {

enum class Storage { f32, f64, bf16 };

// Tokens of a chunk: the recurrences run chunk by chunk, exactly, and carry the state between chunks.
inline constexpr int64_t kChunk = 64;

// Arguments of the recurrences' kernels: row-major arrays in the storage type, or in the accumulation type (float for
// f32 and bf16, double for f64) where marked "acc". Rows are the R query rows of ops/common/packing.h.
struct RecurrenceArgs {
  Storage storage;
  int64_t sequences, heads, kv_heads, key_dim, value_dim;  // B, H, Hkv, Kd, Vd
  const int64_t *tokens, *rows, *read;                     // Packing: [B+1], [B+1], [R] or null
  const int64_t* chunks;                                   // [B+1] chunks before each sequence
  const void *q, *k, *v;                                   // [R, H, Kd], [N, Hkv, Kd], [N, Hkv, Vd]
  const void *g, *w;                                       // acc [N, Hkv]: log decay; beta or dt
  const void* initial;                                     // acc [B, Hkv, Kd, Vd] or null
  // Kept for the backward pass (null when there is none): the state before each chunk, acc [chunks, Hkv, Kd, Vd], and
  // of the delta rule the x of each token (ops/common/chunk_scan.h), acc [N, Hkv, Vd].
  void *chunk_states, *updates;
};

struct RecurrenceForward : RecurrenceArgs {
  void* o;            // [R, H, Vd]
  void* final_state;  // acc [B, Hkv, Kd, Vd]
};

struct RecurrenceBackward : RecurrenceArgs {
  const void* grad_o;              // [R, H, Vd]
  const void* grad_final;          // acc, or null
  void *grad_q, *grad_k, *grad_v;  // in the storage type
  void *grad_g, *grad_w;           // acc
  void* grad_initial;              // acc
};

}  // namespace oryx::ops
