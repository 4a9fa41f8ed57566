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

// Inputs but v, cut into chunks. The readers of a chunk's states and values are its query heads and, for the delta
// rule, its keys: their rows stand below each other and share products.
struct RecurrenceChunks {
  RecurrenceChunks(const RecurrenceKind& kind, const RecurrenceInputs& in);

  bool delta, fused;  // fused: with the kernels of recurrence_cuda.h
  int64_t H, Hkv, Kd, Vd, group, readers, Z = 0, C = 0;
  at::ScalarType type, acc;
  std::shared_ptr<const Packing> packing;
  ChunkList list;
  std::optional<at::Tensor> read;
  at::Tensor row_of_token;   // [N] where fused and `read`: each token's row of queries, or -1
  at::Tensor rows, q, k;     // [Z, readers * C, Kd], and its parts [Z, group * C, Kd] and [Z, C, Kd]
  at::Tensor w, e, f, last;  // acc [Z, C, 1], and [Z, 1, 1]
  at::Tensor G;              // double [Z, C, 1], where fused; elsewhere:
  at::Tensor D, Dw;          // acc [Z, C, C]: D, and D w

  // Parts of a matrix with a row for each of the readers' tokens.
  at::Tensor query_part(const at::Tensor& x) const { return x.narrow(1, 0, group * C); }
  at::Tensor key_part(const at::Tensor& x) const { return x.narrow(1, group * C, C); }
  // x [Z, n * C, dim] as [Z, n, C, dim], and with Z taken apart.
  at::Tensor by_head(const at::Tensor& x) const { return x.view({Z, x.size(1) / C, C, x.size(2)}); }
  at::Tensor by_chunk(const at::Tensor& x) const { return x.view({list.count(), Hkv, x.size(1) / C, C, x.size(2)}); }
  // [R, H, dim] or [N, Hkv, dim] to matrices and back.
  void cut_rows(const at::Tensor& x, const at::Tensor& to) const;
  void cut_keys(const at::Tensor& x, const at::Tensor& to) const;
  at::Tensor join_rows(const at::Tensor& x) const;
  at::Tensor join_keys(const at::Tensor& x, at::ScalarType to, double sign = 1) const;
  // to = x times a factor [Z, C, 1] (or D, where not fused) for each reader, another one, and `sign`; scaled: in the
  // inputs' type.
  void scale_rows(const at::Tensor& to, const at::Tensor& x, const at::Tensor& factor,
                  const std::optional<at::Tensor>& second = std::nullopt, double sign = 1) const;
  at::Tensor scaled(const at::Tensor& x, const at::Tensor& factor,
                    const std::optional<at::Tensor>& second = std::nullopt, double sign = 1) const;
  // to = scores [Z, n * C, C] times D, or D w; without the diagonal in rows from `strict` on.
  void decay_scores(const at::Tensor& to, const at::Tensor& scores, bool weighted, int64_t strict) const;
  // to = (I + N)^-1 of the keys' scores [Z, C, C].
  void inverse(const at::Tensor& to, const at::Tensor& scores) const;
  // The sum of a's row times b's, [Z, rows, 1]; b in the accumulation type.
  at::Tensor row_sums(const at::Tensor& a, const at::Tensor& b) const;
  // A = e_C - (w f K)^T W, just e_C for ssd, for the pass over states or backward over their gradients; keys: w f K.
  at::Tensor transitions(const at::Tensor& minus_W, const at::Tensor& keys, bool backward) const;
  // Turns what each chunk adds, B in its row of `all` [B + chunks, Hkv, Kd, Vd], into its last state, S' = A S + B, and
  // writes what each chunk begins with to `before` [Z, Kd, Vd].
  void pass_states(const at::Tensor& A, const at::Tensor& all, const at::Tensor& before, bool from_zero) const;
  // Rows of `grads` [chunks + B, Kd, Vd] hold what a chunk's own outputs give its first state, and then the gradients
  // of the sequences' last states: makes each chunk's the whole gradient of its first state, dS = A^T dS' + own.
  void pass_gradients(const at::Tensor& A, const at::Tensor& grads) const;
  at::Tensor empty(at::IntArrayRef sizes) const;  // in the inputs' type

 private:
  static bool can_fuse(const at::Tensor& q, int64_t Kd);
};

// What the forward pass leaves for the backward pass, in the inputs' type.
struct RecurrenceSaved {
  // [Z, (C +) Kd + C, Vd]: v for the delta rule, the state before the chunk, and y, so that one product reads the first
  // two and one the last two.
  at::Tensor values;
  at::Tensor TW;  // [Z, C, C + Kd], delta rule: (I + N)^-1 and -W
  at::Tensor state(const RecurrenceChunks& x) const { return values.narrow(1, x.delta ? x.C : 0, x.Kd); }
  at::Tensor y(const RecurrenceChunks& x) const { return values.narrow(1, (x.delta ? x.C : 0) + x.Kd, x.C); }
  at::Tensor T(const RecurrenceChunks& x) const { return TW.narrow(2, 0, x.C); }
  at::Tensor minus_W(const RecurrenceChunks& x) const { return TW.narrow(2, x.C, x.Kd); }
};

RecurrenceResult recurrence_aten_forward(const RecurrenceChunks& x, const at::Tensor& v,
                                         const std::optional<at::Tensor>& initial_state, RecurrenceSaved& saved);

// Gradients of q, k, v, g, w and the initial state; g's and w's in the accumulation type. An undefined gradient is
// zero.
std::vector<at::Tensor> recurrence_aten_backward(const RecurrenceChunks& x, const RecurrenceSaved& saved,
                                                 const at::Tensor& grad_o, const at::Tensor& grad_final);

}  // namespace oryx::ops
