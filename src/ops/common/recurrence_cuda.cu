#include "ops/common/recurrence_cuda.h"

#include "ops/common/cuda_rows.cuh"

namespace oryx::ops::cuda {
namespace {

template <typename T>
__device__ __forceinline__ T* row_of(const Matrices<T>& x, int64_t z, int64_t row) {
  return x.data + z * x.batch + row * x.row;
}
template <typename T>
bool rows_packed(const Matrices<T>& x) {
  return x.columns % 4 == 0 && x.row % 4 == 0 && x.batch % 4 == 0 && aligned(x.data, 4 * sizeof(T));
}
unsigned blocks(int64_t n, int64_t of_block) {
  return static_cast<unsigned>((n + of_block - 1) / of_block);
}

// exp(G_i - G_j): the difference is taken in double, since that of large sums would lose small decays.
__device__ __forceinline__ float decay(double Gi, double Gj) {
  return __expf(static_cast<float>(Gi - Gj));
}

template <typename T>
__global__ void decay_scores_kernel(Matrices<const float> scores, const double* G, const float* w, int64_t strict,
                                    Matrices<T> out) {
  const int64_t C = scores.columns, packs = C / 4;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= scores.batches * scores.rows * packs) return;
  const int64_t j = at % packs * 4, row = at / packs % scores.rows, z = at / packs / scores.rows;
  const int64_t i = row % C, last = row >= strict ? i - 1 : i;
  Pack<T, 4> y = {};
  if (j <= last) {
    const auto x = pack_at<4>(row_of(scores, z, row) + j);
    const double Gi = G[z * C + i];
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (j + e <= last) y.v[e] = narrow<T>(x.v[e] * decay(Gi, G[z * C + j + e]) * (w ? w[z * C + j + e] : 1.0f));
  }
  put_pack<4>(row_of(out, z, row) + j, y);
}

// A block for each matrix, a thread for each column of the inverse X, which needs no other: X_ij = -N_ij - sum over l
// of N_il X_lj, j < l < i. N lies below the diagonal of the shared matrix, X transposed above it.
template <typename T>
__global__ void inverse_kernel(Matrices<const float> scores, const double* G, const float* w, Matrices<T> out) {
  extern __shared__ float shared[];
  const int C = static_cast<int>(scores.columns), pitch = C + 1, j = threadIdx.x;
  const int64_t z = blockIdx.x;
  const double Gj = G[z * C + j];
  const float wj = w[z * C + j];
  for (int i = 0; i < C; ++i)
    if (j < i) shared[i * pitch + j] = row_of(scores, z, i)[j] * decay(G[z * C + i], Gj) * wj;
  __syncthreads();
  float* x = shared + j * pitch;
  const int first = j / kWarp * kWarp;  // of this warp's columns
  for (int i = first + 1; i < C; ++i) {
    const float* n = shared + i * pitch;
    float sums[4] = {};
    int l = first;
    for (; l < first + kWarp && l < i; ++l)
      if (l > j) sums[0] += n[l] * x[l];
    for (; l + 4 <= i; l += 4) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[e] += n[l + e] * x[l + e];
    }
    for (; l < i; ++l) sums[0] += n[l] * x[l];
    if (j < i) x[i] = -n[j] - ((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  __syncthreads();
  for (int i = 0; i < C; ++i) row_of(out, z, i)[j] = narrow<T>(i == j ? 1.0f : i > j ? x[i] : 0.0f);
}

template <int kPack, typename In, typename T>
__global__ void scale_rows_kernel(Matrices<const In> x, int64_t C, const float* factor, const float* second, float sign,
                                  Matrices<T> out) {
  const int64_t packs = x.columns / kPack, at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= x.batches * x.rows * packs) return;
  const int64_t c = at % packs * kPack, row = at / packs % x.rows, z = at / packs / x.rows, i = z * C + row % C;
  const float f = factor[i] * (second ? second[i] : 1.0f) * sign;
  const auto from = pack_at<kPack>(row_of(x, z, row) + c);
  Pack<T, kPack> to;
#pragma unroll
  for (int e = 0; e < kPack; ++e) to.v[e] = narrow<T>(widen(from.v[e]) * f);
  put_pack<kPack>(row_of(out, z, row) + c, to);
}

template <int kPack, typename T>
__global__ void row_dots_kernel(Matrices<const T> a, Matrices<const float> b, int lanes, float* sums) {
  const int lane = lane_of_row(lanes);
  for_rows(a.batches * a.rows, lanes, [&](int64_t row, bool valid) {
    const T* x = row_of(a, row / a.rows, row % a.rows);
    const float* y = row_of(b, row / a.rows, row % a.rows);
    float sum = 0;
    for (int64_t c = lane * kPack; valid && c < a.columns; c += lanes * kPack) {
      const auto xs = pack_at<kPack>(x + c);
      const auto ys = pack_at<kPack>(y + c);
#pragma unroll
      for (int e = 0; e < kPack; ++e) sum += widen(xs.v[e]) * ys.v[e];
    }
    sum = group_sum(sum, lanes);
    if (valid && lane == 0) sums[row] = sum;
  });
}

// The chunks of sequence b (in ChunkList's order), from its first or, backward, from its last.
struct Chunks {
  const StatePass& pass;
  int64_t b, count = 0;
  __device__ Chunks(const StatePass& pass, int64_t b) : pass(pass), b(b) {
    while (count < pass.steps && first(count + 1) - first(count) > b) ++count;
  }
  __device__ int64_t first(int64_t step) const { return pass.first ? pass.first[step] : step * pass.sequences; }
  __device__ int64_t chunk(int64_t n) const { return first(pass.backward ? count - 1 - n : n) + b; }
  __device__ int64_t row(int64_t n) const { return chunk(n) + (pass.backward ? 0 : pass.sequences); }
  __device__ int64_t begin_row() const { return pass.backward ? pass.chunks + b : b; }
};

// A thread for each element of the state; what a few chunks add is read ahead.
__global__ void pass_scaled_kernel(StatePass pass) {
  constexpr int kAhead = 8;
  const int64_t size = pass.Kd * pass.Vd, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= size) return;
  const int64_t head = blockIdx.y;
  const Chunks chunks(pass, blockIdx.z);
  const auto state = [&](int64_t row) { return pass.states + (row * pass.heads + head) * size + i; };
  float S = *state(chunks.begin_row());
  for (int64_t n = 0; n < chunks.count; n += kAhead) {
    float added[kAhead], factor[kAhead];
#pragma unroll
    for (int e = 0; e < kAhead; ++e)
      if (n + e < chunks.count) {
        added[e] = *state(chunks.row(n + e));
        factor[e] = pass.factor[chunks.chunk(n + e) * pass.heads + head];
      }
#pragma unroll
    for (int e = 0; e < kAhead; ++e)
      if (n + e < chunks.count) {
        S = factor[e] * S + added[e];
        *state(chunks.row(n + e)) = S;
      }
  }
}

// A block takes kColumns columns of the state through all chunks. A thread sums a part of the products of one row and
// eight columns; the parts are added up through shared memory.
constexpr int kColumns = 16, kPassThreads = 512;
template <int kKd>
__global__ void __launch_bounds__(kPassThreads) pass_matrices_kernel(StatePass pass) {
  constexpr int kParts = kPassThreads / (2 * kKd), kPart = kKd / kParts, kPitch = kKd + 1;
  constexpr int kOwn = kKd * kColumns / kPassThreads > 0 ? kKd * kColumns / kPassThreads : 1;
  __shared__ float4 S[kKd * kColumns / 4];
  __shared__ float sums[kParts * kColumns * kPitch];
  float* const S_at = reinterpret_cast<float*>(S);
  const int64_t size = static_cast<int64_t>(kKd) * pass.Vd, head = blockIdx.y, column = blockIdx.x * kColumns;
  const Chunks chunks(pass, blockIdx.z);
  const int i = threadIdx.x % kKd, half = threadIdx.x / kKd % 2, part = threadIdx.x / (2 * kKd);
  const auto state = [&](int64_t row, int at) {
    return pass.states + (row * pass.heads + head) * size + at / kColumns * pass.Vd + column + at % kColumns;
  };
  const auto there = [&](int at) { return at < kKd * kColumns && column + at % kColumns < pass.Vd; };
  for (int at = threadIdx.x; at < kKd * kColumns; at += kPassThreads)
    S_at[at] = there(at) ? *state(chunks.begin_row(), at) : 0.0f;
  __syncthreads();
  for (int64_t n = 0; n < chunks.count; ++n) {
    const int64_t row = chunks.row(n);
    float own[kOwn];
#pragma unroll
    for (int e = 0; e < kOwn; ++e) {
      const int at = threadIdx.x + e * kPassThreads;
      own[e] = there(at) ? *state(row, at) : 0.0f;
    }
    const float* M = pass.M + (chunks.chunk(n) * pass.heads + head) * kKd * kKd + i;
    float acc[8] = {};
#pragma unroll 8
    for (int l = part * kPart; l < (part + 1) * kPart; ++l) {
      const float m = M[l * kKd];
      const float4 a = S[l * 4 + half * 2], b = S[l * 4 + half * 2 + 1];
      acc[0] += m * a.x, acc[1] += m * a.y, acc[2] += m * a.z, acc[3] += m * a.w;
      acc[4] += m * b.x, acc[5] += m * b.y, acc[6] += m * b.z, acc[7] += m * b.w;
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) sums[(part * kColumns + half * 8 + e) * kPitch + i] = acc[e];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kOwn; ++e) {
      const int at = threadIdx.x + e * kPassThreads;
      if (!there(at)) continue;
      float sum = own[e];
#pragma unroll
      for (int p = 0; p < kParts; ++p) sum += sums[(p * kColumns + at % kColumns) * kPitch + at / kColumns];
      S_at[at] = sum;
      *state(row, at) = sum;
    }
    __syncthreads();
  }
}

}  // namespace

template <typename T>
void decay_scores(Matrices<const float> scores, const double* G, const float* w, int64_t strict, Matrices<T> out) {
  const int64_t packs = scores.batches * scores.rows * scores.columns / 4;
  if (packs == 0) return;
  decay_scores_kernel<<<blocks(packs, kThreads), kThreads, 0, current_stream()>>>(scores, G, w, strict, out);
  check_launch("decay_scores");
}

template <typename T>
void unit_lower_inverse(Matrices<const float> scores, const double* G, const float* w, Matrices<T> out) {
  if (scores.batches == 0) return;
  const int C = static_cast<int>(scores.columns), bytes = C * (C + 1) * static_cast<int>(sizeof(float));
  cudaFuncSetAttribute(inverse_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  inverse_kernel<<<static_cast<unsigned>(scores.batches), C, bytes, current_stream()>>>(scores, G, w, out);
  check_launch("unit_lower_inverse");
}

template <typename In, typename T>
void scale_rows(Matrices<const In> x, int64_t C, const float* factor, const float* second, float sign,
                Matrices<T> out) {
  const bool packs = rows_packed(x) && rows_packed(out);
  const int64_t threads = x.batches * x.rows * x.columns / (packs ? 4 : 1);
  if (threads == 0) return;
  const auto kernel = packs ? scale_rows_kernel<4, In, T> : scale_rows_kernel<1, In, T>;
  kernel<<<blocks(threads, kThreads), kThreads, 0, current_stream()>>>(x, C, factor, second, sign, out);
  check_launch("scale_rows");
}

template <typename T>
void row_dots(Matrices<const T> a, Matrices<const float> b, float* sums) {
  if (a.batches * a.rows == 0) return;
  const bool packs = rows_packed(a) && rows_packed(b);
  const RowGrid grid = row_grid(a.batches * a.rows, a.columns, packs ? 4 : 1);
  const auto kernel = packs ? row_dots_kernel<4, T> : row_dots_kernel<1, T>;
  kernel<<<grid.blocks(), kThreads, 0, current_stream()>>>(a, b, grid.lanes, sums);
  check_launch("row_dots");
}

void pass_states(const StatePass& pass) {
  if (pass.chunks == 0) return;
  const auto heads = static_cast<unsigned>(pass.heads), sequences = static_cast<unsigned>(pass.sequences);
  if (!pass.M) {
    const dim3 grid(blocks(pass.Kd * pass.Vd, kThreads), heads, sequences);
    pass_scaled_kernel<<<grid, kThreads, 0, current_stream()>>>(pass);
  } else {
    const auto kernel = pass.Kd == 128  ? pass_matrices_kernel<128>
                        : pass.Kd == 64 ? pass_matrices_kernel<64>
                        : pass.Kd == 32 ? pass_matrices_kernel<32>
                                        : pass_matrices_kernel<16>;
    kernel<<<dim3(blocks(pass.Vd, kColumns), heads, sequences), kPassThreads, 0, current_stream()>>>(pass);
  }
  check_launch("pass_states");
}

#define ORYX_INSTANTIATE(T)                                                                                \
  template void decay_scores<T>(Matrices<const float>, const double*, const float*, int64_t, Matrices<T>); \
  template void unit_lower_inverse<T>(Matrices<const float>, const double*, const float*, Matrices<T>);    \
  template void row_dots<T>(Matrices<const T>, Matrices<const float>, float*);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(Bf16)
template void scale_rows<float, float>(Matrices<const float>, int64_t, const float*, const float*, float,
                                       Matrices<float>);
template void scale_rows<float, Bf16>(Matrices<const float>, int64_t, const float*, const float*, float,
                                      Matrices<Bf16>);
template void scale_rows<Bf16, Bf16>(Matrices<const Bf16>, int64_t, const float*, const float*, float, Matrices<Bf16>);

}  // namespace oryx::ops::cuda
