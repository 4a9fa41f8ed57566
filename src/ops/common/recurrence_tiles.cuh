#pragma once

// What the kernels of recurrence_tiles.h share: how a chunk's rows come into shared memory.

#include "ops/common/recurrence_tiles.h"
#include "ops/common/tile_products.cuh"

namespace oryx::ops::cuda {

constexpr int kGateFloats = 4 * kTile;
// G, w, e and f of a chunk and head.
struct Gates {
  float* data;
  __device__ float G(int i) const { return data[i]; }
  __device__ float w(int i) const { return data[kTile + i]; }
  __device__ float e(int i) const { return data[2 * kTile + i]; }
  __device__ float f(int i) const { return data[3 * kTile + i]; }
  __device__ const float* es() const { return data + 2 * kTile; }
  __device__ float last() const { return e(kTile - 1); }
  // What token j's write has lost by token i >= j.
  __device__ float decay(int i, int j) const { return __expf(G(i) - G(j)); }
};

// Parts of the dynamic shared memory, one after the other; each a multiple of 16 bytes.
struct SharedMemory {
  unsigned char* at;
  __device__ Bf16* tile(int rows, int columns) {
    unsigned char* const begin = at;
    at += tile_bytes(rows, columns);
    return reinterpret_cast<Bf16*>(begin);
  }
  __device__ float* floats(int n) {
    unsigned char* const begin = at;
    at += n * 4;
    return reinterpret_cast<float*>(begin);
  }
};

// Rows of kColumns elements on their way into a tile: row_at(i) points to them, or is null, for zeros.
template <int kRows, int kColumns, typename RowAt>
__device__ __forceinline__ void copy_rows(Bf16* tile, const Bf16* any, RowAt&& row_at) {
  constexpr int kPacks = kColumns / 8;
  for (int at = threadIdx.x; at < kRows * kPacks; at += blockDim.x) {
    const int i = at / kPacks, c = at % kPacks * 8;
    const Bf16* const row = row_at(i);
    copy_async(tile + i * pitch_of(kColumns) + c, row ? row + c : any, row != nullptr);
  }
}
// The same for a matrix of `stride` elements a row.
template <int kRows, int kColumns>
__device__ __forceinline__ void copy_matrix(Bf16* tile, const Bf16* from, int64_t stride) {
  copy_rows<kRows, kColumns>(tile, from, [&](int i) { return from + i * stride; });
}

// A chunk's rows for one key/value head, z = chunk * heads + head.
struct ChunkRows {
  const Recurrence& r;
  int head;
  int64_t z;
  int64_t start;          // its first token
  const int64_t* places;  // of its tokens; null: they are `length`
  int length;
  __device__ ChunkRows(const Recurrence& r, int chunk, int head)
      : r(r), head(head), z(static_cast<int64_t>(chunk) * r.heads + head), places(nullptr) {
    if (r.placement.places) {
      places = r.placement.places + static_cast<int64_t>(chunk) * kTile;
      start = *places;
    } else {
      const unsigned sequences = static_cast<unsigned>(r.placement.sequences), step = chunk / sequences;
      const int64_t at = static_cast<int64_t>(step) * kTile;  // in its sequence
      start = (chunk - step * sequences) * r.placement.uniform + at;
      length = static_cast<int>(min(static_cast<int64_t>(kTile), r.placement.uniform - at));
    }
  }
  static __device__ ChunkRows of_block(const Recurrence& r) {  // blocks count z
    const unsigned chunk = blockIdx.x / static_cast<unsigned>(r.heads);
    return ChunkRows(r, static_cast<int>(chunk), static_cast<int>(blockIdx.x - chunk * r.heads));
  }
  __device__ int64_t token(int i) const {
    const bool there = places ? places[i] < r.placement.tokens : i < length;
    return there ? start + i : -1;
  }
  // Of q, o and their gradients, from query head `member` of the group on; of k, v and theirs; of g and w. -1: none.
  __device__ int64_t query_offset(int i, int member) const {
    const int64_t at = token(i), row = at >= 0 && r.row_of_token ? r.row_of_token[at] : at;
    return row < 0 ? -1 : ((row * r.heads + head) * r.group + member) * r.dim;
  }
  __device__ int64_t key_offset(int i) const {
    const int64_t at = token(i);
    return at < 0 ? -1 : (at * r.heads + head) * r.dim;
  }
  __device__ int64_t gate_offset(int i) const {
    const int64_t at = token(i);
    return at < 0 ? -1 : at * r.heads + head;
  }
  template <int kColumns>
  __device__ void copy_queries(Bf16* tile, const Bf16* x, int member) const {
    copy_rows<kTile, kColumns>(tile, x, [&](int i) {
      const int64_t offset = query_offset(i, member);
      return offset < 0 ? nullptr : x + offset;
    });
  }
  template <int kColumns>
  __device__ void copy_keys(Bf16* tile, const Bf16* x) const {
    copy_rows<kTile, kColumns>(tile, x, [&](int i) {
      const int64_t offset = key_offset(i);
      return offset < 0 ? nullptr : x + offset;
    });
  }
  __device__ void copy_gates(float* to) const {
    for (int at = threadIdx.x; at < kGateFloats / 4; at += blockDim.x)
      copy_async(to + at * 4, r.gates + z * kGateFloats + at * 4);
  }
};

// Writes a warp's sums, rows from `row` on, as bfloat16: to x + offset(i) + column, where offset(i) >= 0.
template <int kN, typename Offset>
__device__ __forceinline__ void store_rows(float (&sums)[kN][4], int row, Bf16* x, Offset&& offset) {
  const int64_t offsets[2] = {offset(row + (lane_id() >> 2)), offset(row + (lane_id() >> 2) + 8)};
  for_pairs(sums, [&](int i, int c, float a, float b) {
    const int64_t at = offsets[i >> 3];
    if (at >= 0) pair_at(x + at + c) = pack_pair(a, b);
  });
}
template <int kN>
__device__ __forceinline__ void store_tile(float (&sums)[kN][4], Bf16* tile, int pitch) {
  for_pairs(sums, [&](int i, int c, float a, float b) { pair_at(tile + i * pitch + c) = pack_pair(a, b); });
}

// Warps of a block for a chunk: four share out its rows; at 128 columns there are two such teams, each for 64 columns.
template <int kDim>
constexpr int kChunkThreads = 2 * kDim;
struct WarpPlace {
  int row_tile = threadIdx.x / kWarp % 4, half = threadIdx.x / kWarp / 4;
  int row = row_tile * 16, column = half * kTile;
};

template <auto kKernel, typename... Arguments>
void launch(const char* name, dim3 grid, int threads, int bytes, Arguments... arguments) {
  cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kKernel<<<grid, threads, bytes, current_stream()>>>(arguments...);
  check_launch(name);
}

}  // namespace oryx::ops::cuda
