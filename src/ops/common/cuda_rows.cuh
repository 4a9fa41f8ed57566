#pragma once

// Kernels over rows of elements stored as float, double or Bf16 and computed in Arithmetic<T>: a group of lanes takes a
// row, each lane packs of neighbouring elements. No sum depends on timing: results are the same in every run.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "ops/common/arithmetic.h"
#include "ops/common/cuda_device.h"

namespace oryx::ops::cuda {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float widen(Bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ __forceinline__ float widen(float x) {
  return x;
}
__device__ __forceinline__ double widen(double x) {
  return x;
}
template <typename T>
__device__ __forceinline__ T narrow(Arithmetic<T> x) {
  if constexpr (sizeof(T) == 2)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  else
    return x;
}

// Elements of 16 bytes.
template <typename T>
constexpr int kFull = 16 / static_cast<int>(sizeof(T));
template <typename T, int kPack>
struct alignas(sizeof(T) * kPack) Pack {
  T v[kPack];
};
template <int kPack, typename T>
__device__ __forceinline__ Pack<T, kPack> pack_at(const T* x) {
  return *reinterpret_cast<const Pack<T, kPack>*>(x);
}
template <int kPack, typename T>
__device__ __forceinline__ void put_pack(T* to, const Pack<T, kPack>& x) {
  *reinterpret_cast<Pack<T, kPack>*>(to) = x;
}
// Of Bf16 two at a time, which is one instruction.
template <typename T, int kPack>
__device__ __forceinline__ Pack<T, kPack> narrow_pack(const Arithmetic<T> (&x)[kPack]) {
  Pack<T, kPack> out;
  if constexpr (sizeof(T) == 2 && kPack % 2 == 0) {
#pragma unroll
    for (int j = 0; j < kPack; j += 2) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(x[j], x[j + 1]);
      out.v[j].bits = __bfloat16_as_ushort(pair.x), out.v[j + 1].bits = __bfloat16_as_ushort(pair.y);
    }
  } else {
#pragma unroll
    for (int j = 0; j < kPack; ++j) out.v[j] = narrow<T>(x[j]);
  }
  return out;
}

template <typename A>
__device__ __forceinline__ A exponential(A x) {
  if constexpr (sizeof(A) == 4)
    return __expf(x);
  else
    return exp(x);
}
template <typename A>
__device__ __forceinline__ A sigmoid(A x) {
  if constexpr (sizeof(A) == 4)
    return __fdividef(1.0f, 1.0f + __expf(-x));  // within 2 units in the last place of the quotient
  else
    return 1 / (1 + exp(-x));
}
// Derivative of x sigmoid(x), s = sigmoid(x).
template <typename A>
__device__ __forceinline__ A silu_slope(A x, A s) {
  return s * (1 + x * (1 - s));
}

// Sum over aligned groups of `lanes` lanes, a power of two; every lane gets it.
template <typename A>
__device__ __forceinline__ A group_sum(A x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// How rows of `width` elements are shared out: `lanes` lanes a row, kThreads / lanes rows a block.
struct RowGrid {
  int lanes;
  int64_t rows;
  unsigned blocks() const {
    const int64_t of_block = kThreads / lanes;
    return static_cast<unsigned>(std::min<int64_t>((rows + of_block - 1) / of_block, int64_t{1} << 16));
  }
};
// 1 / rms of a row from its lanes' sums of squares.
template <typename A>
__device__ __forceinline__ A inverse_rms(A squares, int lanes, int64_t width, double eps) {
  return rsqrt(group_sum(squares, lanes) / static_cast<A>(width) + static_cast<A>(eps));
}

// Enough blocks for every processor to hold as many as fit: for kernels whose blocks leave a partial sum each.
constexpr unsigned kSumBlocks = 1024;

inline RowGrid row_grid(int64_t rows, int64_t width, int pack) {
  int lanes = 1;
  while (lanes < kWarp && lanes * pack < width) lanes *= 2;
  return {lanes, rows};
}

// This thread's lane, and work(row) for each of its rows, in step for all lanes of a warp (past the end `valid` is
// false, and what the row reads must be guarded).
template <typename Work>
__device__ __forceinline__ void for_rows(int64_t rows, int lanes, Work&& work) {
  const int64_t of_grid = static_cast<int64_t>(gridDim.x) * (kThreads / lanes);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (kThreads / lanes);
  for (int64_t base = first; base < rows; base += of_grid) {
    const int64_t row = base + threadIdx.x / lanes;
    work(row, row < rows);
  }
}
__device__ __forceinline__ int lane_of_row(int lanes) {
  return threadIdx.x % lanes;
}

// A lane's packs of one row: in registers where kCount of them are enough (0: read again each time).
template <int kPack, int kCount, typename T>
struct RowPacks {
  const T* row;
  Pack<T, kPack> kept[kCount > 0 ? kCount : 1];
  __device__ __forceinline__ const Pack<T, kPack>& read(int place, int64_t i) {
    return kept[place] = pack_at<kPack>(row + i);
  }
  __device__ __forceinline__ const Pack<T, kPack>& again(int place, int64_t i) {
    return kCount > 0 ? kept[place] : read(place, i);
  }
};
// work(place, i) for the packs at begin, begin + step, ... before end.
template <int kCount, typename Work>
__device__ __forceinline__ void for_lane_packs(int64_t begin, int64_t end, int64_t step, Work&& work) {
  if constexpr (kCount > 0) {
#pragma unroll
    for (int place = 0; place < kCount; ++place)
      if (begin + place * step < end) work(place, begin + place * step);
  } else {
    for (int64_t i = begin; i < end; i += step) work(0, i);
  }
}
// sums[j] of each lane's packs, over the rows of all groups of a block: partial[block][width], groups in order.
template <int kPack, int kCount, typename A>
__device__ __forceinline__ void put_column_sums(const A (&sums)[kCount][kPack], int64_t width, int lanes, A* partial) {
  extern __shared__ double shared_memory[];
  A* const shared = reinterpret_cast<A*>(shared_memory);
  const int group = threadIdx.x / lanes, begin = lane_of_row(lanes) * kPack;
  for (int turn = 0; turn < kThreads / lanes; ++turn) {
    if (group == turn)
      for_lane_packs<kCount>(begin, width, lanes * kPack, [&](int place, int64_t i) {
#pragma unroll
        for (int j = 0; j < kPack; ++j) shared[i + j] = sums[place][j] + (turn > 0 ? shared[i + j] : A(0));
      });
    __syncthreads();
  }
  for (int64_t i = threadIdx.x; i < width; i += kThreads) partial[blockIdx.x * width + i] = shared[i];
}

inline bool aligned(const void* x, size_t bytes) {
  return reinterpret_cast<uintptr_t>(x) % bytes == 0;
}
// Whether rows of `width` elements can be read in packs through all of these pointers (null: not used).
template <int kPack, typename... Pointers>
bool in_packs(int64_t width, const Pointers*... pointers) {
  return width % kPack == 0 && (aligned(pointers, kPack * sizeof(Pointers)) && ...);
}

template <int kValue>
using Int = std::integral_constant<int, kValue>;
// work(Int<kCount>{}) for rows of which each lane takes `packs` packs, up to kMost of which are kept: a power of two.
template <int kCount, int kMost, typename Work>
void with_kept_packs(int64_t packs, Work&& work) {
  if constexpr (kCount > kMost)
    work(Int<0>{});
  else if (packs <= kCount)
    work(Int<kCount>{});
  else
    with_kept_packs<2 * kCount, kMost>(packs, work);
}
// work(Int<pack>{}, Int<kCount>{}, grid): kPack elements at a time where rows and pointers allow, and the packs kept.
template <int kPack, typename Work, typename... Pointers>
void with_packs(int64_t rows, int64_t width, Work&& work, const Pointers*... pointers) {
  if constexpr (kPack > 1) {
    if (in_packs<kPack>(width, pointers...)) {
      const RowGrid grid = row_grid(rows, width, kPack);
      const int64_t step = grid.lanes * kPack;
      constexpr int kMost = std::min(16, 64 / kPack);  // what registers have room for
      return with_kept_packs<1, kMost>((width + step - 1) / step, [&](auto count) { work(Int<kPack>{}, count, grid); });
    }
  }
  work(Int<1>{}, Int<0>{}, row_grid(rows, width, 1));
}

// sums[i] = scale * sum over rows of term(row, i): threads side by side take columns, threads below each other rows,
// and a second kernel adds up the blocks.
template <typename A, typename Term>
__global__ void column_sums_kernel(int64_t rows, int64_t width, int64_t rows_of_block, A* partial, Term term) {
  extern __shared__ double shared_memory[];
  A* shared = reinterpret_cast<A*>(shared_memory);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t begin = blockIdx.y * rows_of_block, end = min(rows, begin + rows_of_block);
  A sum = 0;
  if (column < width)
    for (int64_t row = begin + threadIdx.y; row < end; row += blockDim.y) sum += term(row, column);
  shared[threadIdx.y * blockDim.x + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= width) return;
  for (int y = 1; y < blockDim.y; ++y) sum += shared[y * blockDim.x + threadIdx.x];
  partial[blockIdx.y * width + column] = sum;
}
// A warp's lanes take columns, the warps of a block share out the rows.
template <typename A>
__global__ void add_partial_kernel(int64_t blocks, int64_t width, A scale, const A* partial, A* sums) {
  __shared__ A shared[kWarp][kWarp];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  A sum = 0;
  for (int64_t b = threadIdx.y; i < width && b < blocks; b += kWarp) sum += partial[b * width + i];
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || i >= width) return;
  for (int y = 1; y < kWarp; ++y) sum += shared[y][threadIdx.x];
  sums[i] = sum * scale;
}

template <typename A>
void add_partial(int64_t blocks, int64_t width, A scale, const A* partial, A* sums) {
  const unsigned grid = static_cast<unsigned>((width + kWarp - 1) / kWarp);
  add_partial_kernel<<<grid, dim3(kWarp, kWarp), 0, current_stream()>>>(blocks, width, scale, partial, sums);
  check_launch("add_partial");
}

template <typename A, typename Term>
void column_sums(int64_t rows, int64_t width, A scale, A* sums, Term term) {
  const int columns = static_cast<int>(std::min<int64_t>(kThreads, (width + kWarp - 1) / kWarp * kWarp));
  const dim3 block(columns, kThreads / columns);
  const int64_t across = (width + columns - 1) / columns;
  const int64_t rows_of_block = std::max<int64_t>(16 * block.y, (rows * across + 511) / 512);
  const int64_t down = std::max<int64_t>(1, (rows + rows_of_block - 1) / rows_of_block);
  const DeviceMemory partial(down * width * sizeof(A));
  column_sums_kernel<<<dim3(across, down), block, kThreads * sizeof(A), current_stream()>>>(rows, width, rows_of_block,
                                                                                            partial.as<A>(), term);
  check_launch("column_sums");
  add_partial(down, width, scale, partial.as<A>(), sums);
}

// What a backward pass over rows leaves for the weight's gradient (width: of a row; unless `wanted`, nothing): where a
// lane keeps kCount packs, each block's partial sums [blocks, width], else each row's r.
template <int kCount, typename A>
class WeightSums {
 public:
  WeightSums(const RowGrid& grid, int64_t width, bool wanted)
      : blocks(kCount > 0 && wanted ? std::min(grid.blocks(), kSumBlocks) : grid.blocks()),
        shared_bytes(kCount > 0 ? width * sizeof(A) : 0),
        rows_(grid.rows),
        width_(width),
        memory_(wanted ? (kCount > 0 ? blocks * width : grid.rows) * sizeof(A) : 0) {}
  A* partial() const { return kCount > 0 ? memory_.as<A>() : nullptr; }
  A* inverse() const { return kCount > 0 ? nullptr : memory_.as<A>(); }
  // sums = scale * the sum over rows, whose parts term(row, column) are needed where rows were not kept.
  template <typename Term>
  void add_up(A scale, A* sums, Term term) const {
    if constexpr (kCount > 0)
      add_partial(rows_ > 0 ? blocks : 0, width_, scale, partial(), sums);
    else
      column_sums(rows_, width_, scale, sums, term);
  }

  const unsigned blocks;
  const size_t shared_bytes;

 private:
  const int64_t rows_, width_;
  const DeviceMemory memory_;
};

}  // namespace oryx::ops::cuda
