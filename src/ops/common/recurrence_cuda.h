#pragma once

// Steps of the chunked recurrence (recurrence_aten.h) that ATen would take in several passes over memory, or in many
// small ones. Batches Z of matrices [rows, columns], columns side by side; T is float or Bf16, factors [Z, C] belong to
// row i mod C. All sums are in float.

#include <cstdint>

#include "ops/common/bf16.h"
#include "ops/common/chunk_places.h"

namespace oryx::ops::cuda {

template <typename T>
struct Matrices {
  T* data;
  int64_t batches, rows, columns;
  int64_t batch, row;  // elements from one to the next
};

// out [chunks H, group C, dim] from x [rows, H group, dim]; zero where there is no token, or row_of_token [tokens]
// (null: the token itself) is negative.
template <typename In, typename T>
void cut(const Placement& placement, const In* x, const int64_t* row_of_token, int64_t heads, Matrices<T> out);
// And back, times sign, for the tokens that `read` [rows] names (null: all).
template <typename In, typename T>
void join(const Placement& placement, Matrices<const In> x, const int64_t* read, int64_t rows, int64_t heads,
          float sign, T* out);

// out_ij = scores_ij exp(G_i - G_j) w_j for j <= i, and for j < i in rows from `strict` on, else 0; i counts from each
// multiple of C columns. w null: ones.
template <typename T>
void decay_scores(Matrices<const float> scores, const double* G, const float* w, int64_t strict, Matrices<T> out);

// (I + N)^-1, N as above with j < i everywhere. C <= 128.
template <typename T>
void unit_lower_inverse(Matrices<const float> scores, const double* G, const float* w, Matrices<T> out);

// out = x times factor, times `second` unless null, times sign.
template <typename In, typename T>
void scale_rows(Matrices<const In> x, int64_t C, const float* factor, const float* second, float sign, Matrices<T> out);

// sums [Z, rows]: each row of a times that of b.
template <typename T>
void row_dots(Matrices<const T> a, Matrices<const float> b, float* sums);

// The states of all chunks, one after the other: forward `states` [B + chunks, H, Kd, Vd] hold the sequences' first
// states and then what each chunk adds, and get S' = M S + added; backward [chunks + B, ...] what each chunk adds and
// then the gradients of the last states. Chunks stand in the order of ChunkList; first [steps + 1] lies on the device,
// and is null where every sequence has a chunk in every step. M is given transposed, [chunks, H, Kd, Kd], or null: then
// `factor` [chunks, H] takes its place.
struct StatePass {
  const int64_t* first;
  int64_t steps, chunks, sequences, heads, Kd, Vd;
  const float *M, *factor;
  float* states;
  bool backward;
  // Also the state before each chunk, [chunks H, Kd, Vd] in float or bfloat16, matrices `before_batch` elements apart;
  // null: not wanted.
  void* before = nullptr;
  bool before_bf16 = false;
  int64_t before_batch = 0;
};
inline bool can_pass(int64_t Kd) {
  return Kd == 16 || Kd == 32 || Kd == 64 || Kd == 128;
}
void pass_states(const StatePass& pass);

}  // namespace oryx::ops::cuda
