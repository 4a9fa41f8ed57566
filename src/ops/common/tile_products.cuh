#pragma once

// Products of bfloat16 tiles in shared memory with float sums, by the tensor cores of sm_80 and later (mma.sync
// m16n8k16 and ldmatrix; layouts: PTX ISA, "Matrix fragments for mma.m16n8k16"). A warp sums 16 rows by 8 n columns in
// float sums[n][4]; a tile's rows are kPitch elements apart, 8 more than it has columns, so that the eight rows which
// ldmatrix reads together lie in different banks.

#include <cstdint>

#include "ops/common/cuda_rows.cuh"

namespace oryx::ops::cuda {

__host__ __device__ constexpr int pitch_of(int columns) {
  return columns + 8;
}
__host__ __device__ constexpr int tile_bytes(int rows, int columns) {
  return rows * pitch_of(columns) * 2;
}

__device__ __forceinline__ uint32_t shared_address(const void* x) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(x));
}
// 16 bytes on their way to shared memory, zeros unless `there`.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool there = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ __forceinline__ void end_copies() {
  asm volatile("cp.async.commit_group;");
}
// Until at most the last kPending groups are on their way.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

// A 16 x 16 factor on the left, or two 16 x 8 ones on the right.
struct Fragment {
  uint32_t r[4];
};
__device__ __forceinline__ Fragment load_matrices(const Bf16* x) {
  Fragment f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3])
               : "r"(shared_address(x)));
  return f;
}
__device__ __forceinline__ Fragment load_transposed(const Bf16* x) {
  Fragment f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3])
               : "r"(shared_address(x)));
  return f;
}
__device__ __forceinline__ int lane_id() {
  return threadIdx.x & 31;
}
// The left factor whose element (i, k) is tile[i][k], from (row, k) on; transposed: tile[k][i].
template <int kPitch>
__device__ __forceinline__ Fragment left(const Bf16* tile, int row, int k) {
  return load_matrices(tile + (row + (lane_id() & 15)) * kPitch + k + (lane_id() >> 4) * 8);
}
template <int kPitch>
__device__ __forceinline__ Fragment left_transposed(const Bf16* tile, int row, int k) {
  const int lane = lane_id();
  return load_transposed(tile + (k + (lane & 7) + (lane >> 4) * 8) * kPitch + row + (lane >> 3 & 1) * 8);
}
// The right factor whose element (k, j) is tile[k][j], for 16 columns from `column` on; transposed: tile[j][k].
template <int kPitch>
__device__ __forceinline__ Fragment right(const Bf16* tile, int k, int column) {
  const int lane = lane_id();
  return load_transposed(tile + (k + (lane & 15)) * kPitch + column + (lane >> 4) * 8);
}
template <int kPitch>
__device__ __forceinline__ Fragment right_transposed(const Bf16* tile, int k, int column) {
  const int lane = lane_id();
  return load_matrices(tile + (column + (lane & 7) + (lane >> 4) * 8) * kPitch + k + (lane >> 3 & 1) * 8);
}

__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ __forceinline__ float low_of(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float high_of(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}
// A right factor, its rows times factor(k), k counting from the fragment's first.
template <typename Factor>
__device__ __forceinline__ Fragment rows_times(Fragment f, Factor&& factor) {
  const int k = (lane_id() & 3) * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    f.r[i] = pack_pair(low_of(f.r[i]) * factor(k + (i & 1) * 8), high_of(f.r[i]) * factor(k + (i & 1) * 8 + 1));
  return f;
}
// Sums of 16 columns as the left factor of the next product.
__device__ __forceinline__ Fragment as_left(const float (&a)[4], const float (&b)[4]) {
  return {{pack_pair(a[0], a[1]), pack_pair(a[2], a[3]), pack_pair(b[0], b[1]), pack_pair(b[2], b[3])}};
}

__device__ __forceinline__ void multiply_add(float (&sums)[4], const Fragment& a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}
// sums += left right: a(k) and b(k, n) give the fragments of step k and of columns 16 n and on. wanted(k): whether step
// k, and wanted_columns(n): whether these columns are needed, the same for all of a warp.
template <int kSteps, int kN, typename Left, typename Right, typename Wanted, typename WantedColumns>
__device__ __forceinline__ void multiply(float (&sums)[kN][4], Left&& a, Right&& b, Wanted&& wanted,
                                         WantedColumns&& wanted_columns) {
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    if (!wanted(k)) continue;
    const Fragment x = a(k);
#pragma unroll
    for (int n = 0; n < kN / 2; ++n) {
      if (!wanted_columns(n)) continue;
      const Fragment y = b(k, n);
      multiply_add(sums[2 * n], x, y.r[0], y.r[1]);
      multiply_add(sums[2 * n + 1], x, y.r[2], y.r[3]);
    }
  }
}
struct Always {
  __device__ __forceinline__ bool operator()(int) const { return true; }
};
template <int kSteps, int kN, typename Left, typename Right>
__device__ __forceinline__ void multiply(float (&sums)[kN][4], Left&& a, Right&& b) {
  multiply<kSteps>(sums, a, b, Always(), Always());
}

// work(row, column, sum) for each of a thread's sums.
template <int kN, typename Work>
__device__ __forceinline__ void for_sums(float (&sums)[kN][4], Work&& work) {
#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      work((lane_id() >> 2) + (e >> 1) * 8, 8 * n + (lane_id() & 3) * 2 + (e & 1), sums[n][e]);
}
// work(row, column, a, b) for neighbouring ones, column even.
template <int kN, typename Work>
__device__ __forceinline__ void for_pairs(float (&sums)[kN][4], Work&& work) {
#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int e = 0; e < 4; e += 2)
      work((lane_id() >> 2) + (e >> 1) * 8, 8 * n + (lane_id() & 3) * 2, sums[n][e], sums[n][e + 1]);
}
__device__ __forceinline__ uint32_t& pair_at(Bf16* x) {
  return *reinterpret_cast<uint32_t*>(x);
}
__device__ __forceinline__ uint32_t pair_at(const Bf16* x) {
  return *reinterpret_cast<const uint32_t*>(x);
}
// Sums over the four lanes that share rows: of rows lane / 4 and lane / 4 + 8.
__device__ __forceinline__ void add_over_columns(float (&rows)[2]) {
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    rows[0] += __shfl_xor_sync(kAllLanes, rows[0], step);
    rows[1] += __shfl_xor_sync(kAllLanes, rows[1], step);
  }
}

}  // namespace oryx::ops::cuda
