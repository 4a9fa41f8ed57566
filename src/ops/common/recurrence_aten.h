#pragma once

// The chunked recurrence on batched matrices, one batch Z for each chunk and key/value head. In the terms of
// ops/common/chunk_scan.h, but with what a token writes kept apart from its weight, u_i = w_i y_i:
//
//     D_ij = exp(G_i - G_j) for j <= i, else 0;    N_ij = D_ij w_j k_i . k_j for j < i
//     y  = V (ssd)    or    (I + N)^-1 (V - e K S) = Y - W S (gated delta rule)
//     o  = e Q S + (Q K^T o D) w y;    S' = e_C S + (w f K)^T y
//
// so that S' = A S + B with A = e_C - (w f K)^T W, and only that product, for all sequences and heads at once, goes
// from chunk to chunk. Factors of products are in the inputs' type, sums and states in the accumulation type, and so is
// everything up to (I + N)^-1.

#include <ATen/core/Tensor.h>

#include "ops/common/chunk_list.h"
#include "ops/common/recurrence.h"

namespace oryx::ops {

// Inputs cut into chunks.
struct RecurrenceChunks {
  RecurrenceChunks(const RecurrenceKind& kind, const RecurrenceInputs& in);

  bool delta;
  int64_t H, Hkv, Kd, Vd, Z, C, group;
  at::ScalarType type, acc;
  ChunkList list;
  std::optional<at::Tensor> read;
  at::Tensor q, k, v;        // [Z, group * C, Kd], [Z, C, Kd], [Z, C, Vd]
  at::Tensor w, e, f, last;  // acc [Z, C, 1], and [Z, 1, 1]
  at::Tensor D;              // acc [Z, C, C]

  // Query rows [R, H, dim] to [Z, group * C, dim] and back; keys and values [Z, C, dim] back to [N, Hkv, dim].
  at::Tensor cut_rows(const at::Tensor& x) const;
  at::Tensor join_rows(const at::Tensor& x) const;
  at::Tensor join_keys(const at::Tensor& x, at::ScalarType to) const {
    return list.join(x.view({list.count(), Hkv, C, x.size(2)}), to);
  }
  // x [Z, group * C, n] times a factor [Z, C, n or 1], in the inputs' type.
  at::Tensor scaled_rows(const at::Tensor& x, const at::Tensor& factor) const;
  // A product's matrices, and a factor's, with the chunk's state: rows of `states` [rows, Hkv, Kd, Vd].
  at::Tensor batches(const at::Tensor& states) const { return states.reshape({-1, Kd, Vd}); }
};

// What the forward pass leaves for the backward pass. W and T are undefined for ssd, whose y is v.
struct RecurrenceSaved {
  at::Tensor states;   // in the inputs' type: see ChunkList::begins
  at::Tensor y, W, T;  // [Z, C, Vd], [Z, C, Kd], [Z, C, C] (I + N)^-1
};

RecurrenceResult recurrence_aten_forward(const RecurrenceChunks& x, const std::optional<at::Tensor>& initial_state,
                                         RecurrenceSaved* saved);

// Gradients of q, k, v, g, w and the initial state; g's and w's in the accumulation type. An undefined gradient is
// zero.
std::vector<at::Tensor> recurrence_aten_backward(const RecurrenceChunks& x, const RecurrenceSaved& saved,
                                                 const at::Tensor& grad_o, const at::Tensor& grad_final);

}  // namespace oryx::ops
