#pragma once

#include "ops/common/cuda_rows.cuh"

namespace oryx::ops::cuda {

// out = sign A B for square matrices of size s in shared memory.
__device__ __forceinline__ void product_of_blocks(int s, const float* A, int lda, const float* B, int ldb, float sign,
                                                  float* out, int ldo, int thread, int threads) {
  const int columns = s / 4, teams = threads / columns;  // a thread takes four columns, `columns` apart
  const int c = thread % columns;
  for (int r = thread / columns * 4; r < s; r += teams * 4) {
    float sums[4][4] = {};
#pragma unroll 4
    for (int l = 0; l < s; ++l) {
      float a[4], b[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) a[e] = A[(r + e) * lda + l], b[e] = B[l * ldb + c + e * columns];
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int f = 0; f < 4; ++f) sums[e][f] += a[e] * b[f];
    }
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int f = 0; f < 4; ++f) out[(r + e) * ldo + c + f * columns] = sign * sums[e][f];
  }
}

// N [size, size], strictly lower, in shared memory with rows `pitch` apart, becomes (I + N)^-1: inverses of its
// diagonal blocks of 32 by substitution, a lane for each column, then merged to twice their size as (X11 0; -X22 N21
// X11, X22). size: 32, 64 or 128, at most `threads`, those of the block; between [size / 2, size / 2] is for products.
constexpr int kInverseBase = 32;
__device__ __forceinline__ void invert_unit_lower(float* N, int size, int pitch, float* between, int threads) {
  if (threadIdx.x < size) {
    const int lane = threadIdx.x % kInverseBase;
    float* const block = N + threadIdx.x / kInverseBase * kInverseBase * (pitch + 1);
    float x[kInverseBase];
#pragma unroll
    for (int i = 0; i < kInverseBase; ++i) {
      float sum = i == lane ? 1.0f : 0.0f;
#pragma unroll
      for (int l = 0; l < i; ++l) sum -= block[i * pitch + l] * x[l];
      x[i] = sum;
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kInverseBase; ++i) block[i * pitch + lane] = x[i];
  }
  for (int s = kInverseBase; s < size; s *= 2) {
    const int pairs = size / (2 * s), team = threads / pairs, thread = threadIdx.x % team;
    float* const corner = N + threadIdx.x / team * 2 * s * (pitch + 1);
    float* const lower = corner + s * pitch;
    float* const product = between + threadIdx.x / team * s * s;
    __syncthreads();
    product_of_blocks(s, lower, pitch, corner, pitch, 1, product, s, thread, team);  // N21 X11
    __syncthreads();
    product_of_blocks(s, lower + s, pitch, product, s, -1, lower, pitch, thread, team);
  }
  __syncthreads();
}

}  // namespace oryx::ops::cuda
