#pragma once

// The chunked recurrence of recurrence_aten.h on tensor cores, for bfloat16 inputs with Kd = Vd = 64 or 128: chunks of
// 64 tokens, read where they stand, everything of a chunk in registers and shared memory. With its symbols, per chunk
// and key/value head:
//
//   forward   prepare (delta rule; chunks side by side): T = (I + N)^-1 in float, W = T e K, U = T V
//             pass (one after the other): y = U - W S, or V; S' = e_C S + K^T w f y
//             output (side by side): o = e Q S + (Q K^T o D w) y
//   backward  local (delta rule; side by side): H = (Q K^T o D)^T dO
//             pass (from the last on): H += f K dS'; dS = e_C dS' + Q^T e dO - W^T w H
//             gradients (side by side): all others, as in recurrence_aten_backward.cpp
//
// Sums, gates and states are float; factors of products bfloat16.

#include <cstdint>

#include "ops/common/bf16.h"
#include "ops/common/chunk_places.h"

namespace oryx::ops::cuda {

constexpr int kTile = 64;  // tokens of a chunk

struct Recurrence {
  bool delta;
  Placement placement;           // C = kTile
  const int64_t *first, *order;  // [steps + 1] (SequenceChunks), [B] the place of a sequence in cu_seqlens; or null
  const int64_t* row_of_token;   // [N] or null: all are read; -1: not read
  int64_t steps, chunks;
  int heads, group, dim;  // Hkv, H / Hkv, Kd
  const Bf16 *q, *k, *v;  // [R, H, dim], [N, Hkv, dim]
  const float *g, *w;     // [N, Hkv]
  const float* initial;   // [B, Hkv, dim, dim] or null
  // Per chunk and head: G, w, e, f [4, 64]; for the delta rule W and y (before the pass: U) [64, dim], T [64, 64];
  // and the state before it [dim, dim].
  float* gates;
  Bf16 *W, *y, *T, *before;
};
struct RecurrenceOutputs {
  Bf16* o;             // [R, H, dim]
  float* final_state;  // [B, Hkv, dim, dim]
};
struct RecurrenceGradients {
  const Bf16* o;             // [R, H, dim]
  const float* final_state;  // or null
  Bf16 *H, *end;             // workspace: [64, dim] (delta rule) and [dim, dim] per chunk and head
  Bf16 *q, *k, *v;
  float *g, *w, *initial;
};

// Whether the current device can.
bool can_use_tiles(bool delta, int64_t group, int64_t Kd, int64_t Vd);
void recurrence_tiles_forward(const Recurrence& in, const RecurrenceOutputs& out);  // fills gates, W, y, T, before
void recurrence_tiles_backward(const Recurrence& in, const RecurrenceGradients& grad);

}  // namespace oryx::ops::cuda
