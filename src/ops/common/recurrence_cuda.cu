#include "ops/common/recurrence_cuda.h"

#include "ops/common/cuda_rows.cuh"
#include "ops/common/lower_inverse.cuh"

namespace oryx::ops::cuda {
namespace {

template <typename T>
__device__ __forceinline__ T* row_of(const Matrices<T>& x, int64_t z, int64_t row) {
  return x.data + z * x.batch + row * x.row;
}
template <int kPack, typename T>
bool rows_packed(const Matrices<T>& x) {
  return x.columns % kPack == 0 && x.row % kPack == 0 && x.batch % kPack == 0 &&
         aligned(x.data, std::min<size_t>(16, kPack * sizeof(T)));
}
// Threads that share out a matrix, of which this is one.
struct Team {
  int thread, size;  // size: a power of two
};
// work(row, column) for the packs of a matrix: 2^shift lanes to a row.
template <int kPack, typename Work>
__device__ __forceinline__ void for_matrix(Team team, int rows, int columns, int shift, Work&& work) {
  const int lane = team.thread & ((1 << shift) - 1);
#pragma unroll 4
  for (int row = team.thread >> shift; row < rows; row += team.size >> shift)
    for (int c = lane * kPack; c < columns; c += kPack << shift) work(row, c);
}
__device__ __forceinline__ Team whole_block() {
  return {static_cast<int>(threadIdx.x), kThreads};
}
int lanes_shift(int64_t columns, int pack) {
  int shift = 0;
  while (shift < 8 && (pack << shift) < columns) ++shift;
  return shift;
}
unsigned blocks(int64_t n, int64_t of_block) {
  return static_cast<unsigned>((n + of_block - 1) / of_block);
}

// Small matrices, one for each token: as many teams to a block as there is work for.
struct TokenTeams {
  int64_t count;  // of tokens
  int shift;      // 2^shift threads to a team

  TokenTeams(int64_t count, int64_t rows, int lanes_shift) : count(count), shift(lanes_shift) {
    while ((1 << shift) < kThreads && (int64_t{1} << (shift - lanes_shift)) < rows) ++shift;
  }
  unsigned blocks() const { return cuda::blocks(count, kThreads >> shift); }
  __device__ __forceinline__ Team team() const {
    return {static_cast<int>(threadIdx.x) & ((1 << shift) - 1), 1 << shift};
  }
  __device__ __forceinline__ int64_t token() const {
    return static_cast<int64_t>(blockIdx.x) * (kThreads >> shift) + (threadIdx.x >> shift);
  }
};

// A team for each place.
template <int kPack, typename In, typename T>
__global__ void cut_kernel(TokenTeams teams, Placement placement, const In* x, const int64_t* row_of_token, int heads,
                           int shift, Matrices<T> out) {
  const int C = static_cast<int>(placement.C), group = static_cast<int>(out.rows) / C;
  const int64_t place = teams.token(), chunk = place / C;
  if (place >= teams.count) return;
  const int i = static_cast<int>(place % C);
  int64_t from = token_at(placement, chunk, i);
  if (from >= 0 && row_of_token) from = row_of_token[from];
  const In* const values_at = x + from * heads * group * out.columns;
  for_matrix<kPack>(teams.team(), heads * group, static_cast<int>(out.columns), shift, [&](int head, int c) {
    Pack<T, kPack> y = {};
    if (from >= 0) {
      const auto values = pack_at<kPack>(values_at + head * out.columns + c);
#pragma unroll
      for (int e = 0; e < kPack; ++e)
        if constexpr (sizeof(In) == sizeof(T))
          y.v[e] = values.v[e];
        else
          y.v[e] = static_cast<T>(values.v[e]);
    }
    put_pack<kPack>(row_of(out, chunk * heads + head / group, head % group * C + i) + c, y);
  });
}

// A team for each row.
template <int kPack, typename In, typename T>
__global__ void join_kernel(TokenTeams teams, Placement placement, Matrices<const In> x, const int64_t* read, int heads,
                            int shift, float sign, T* out) {
  const int C = static_cast<int>(placement.C), group = static_cast<int>(x.rows) / C;
  const int64_t row = teams.token();
  if (row >= teams.count) return;
  const int64_t place = place_of(placement, read ? read[row] : row), chunk = place / C;
  const int i = static_cast<int>(place % C);
  for_matrix<kPack>(teams.team(), heads * group, static_cast<int>(x.columns), shift, [&](int head, int c) {
    const auto values = pack_at<kPack>(row_of(x, chunk * heads + head / group, head % group * C + i) + c);
    Pack<T, kPack> y;
#pragma unroll
    for (int e = 0; e < kPack; ++e) y.v[e] = narrow<T>(widen(values.v[e]) * sign);
    put_pack<kPack>(out + (row * heads * group + head) * x.columns + c, y);
  });
}

// exp(G_i - G_j): the difference is taken in double, since that of large sums would lose small decays.
__device__ __forceinline__ float decay(double Gi, double Gj) {
  return __expf(static_cast<float>(Gi - Gj));
}

// A block for each matrix.
template <int kPack, typename T>
__global__ void decay_scores_kernel(Matrices<const float> scores, const double* G, const float* w, int strict,
                                    int shift, Matrices<T> out) {
  const int C = static_cast<int>(scores.columns);
  const int64_t z = blockIdx.x;
  G += z * C, w = w ? w + z * C : nullptr;
  for_matrix<kPack>(whole_block(), static_cast<int>(scores.rows), C, shift, [&](int row, int j) {
    const int i = row & (C - 1), last = row >= strict ? i - 1 : i;
    Pack<T, kPack> y = {};
    if (j <= last) {
      const auto x = pack_at<kPack>(row_of(scores, z, row) + j);
      const double Gi = G[i];
#pragma unroll
      for (int e = 0; e < kPack; ++e)
        if (j + e <= last) y.v[e] = narrow<T>(x.v[e] * decay(Gi, G[j + e]) * (w ? w[j + e] : 1.0f));
    }
    put_pack<kPack>(row_of(out, z, row) + j, y);
  });
}

// A block for each matrix. The inverse takes N's place in shared memory.
constexpr int kInverseThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kInverseThreads)
    inverse_kernel(Matrices<const float> scores, const double* G, const float* w, Matrices<T> out, int size) {
  extern __shared__ float shared[];
  const int C = static_cast<int>(scores.columns), pitch = size + 1;
  float* const product = shared + size * pitch;  // [size / 2, size / 2]
  const int64_t z = blockIdx.x;
  const int j = threadIdx.x & (size - 1), step = kInverseThreads / size;
  const double Gj = j < C ? G[z * C + j] : 0;
  const float wj = j < C ? w[z * C + j] : 0;
#pragma unroll 8
  for (int i = threadIdx.x / size; i < size; i += step)
    shared[i * pitch + j] = j < i && i < C ? row_of(scores, z, i)[j] * decay(G[z * C + i], Gj) * wj : 0.0f;
  __syncthreads();
  invert_unit_lower(shared, size, pitch, product, kInverseThreads);
  for (int i = threadIdx.x / size; i < C && j < C; i += step) row_of(out, z, i)[j] = narrow<T>(shared[i * pitch + j]);
}

// A block for each matrix.
template <int kPack, typename In, typename T>
__global__ void scale_rows_kernel(Matrices<const In> x, int C, const float* factor, const float* second, float sign,
                                  int shift, Matrices<T> out) {
  const int64_t z = blockIdx.x;
  factor += z * C, second = second ? second + z * C : nullptr;
  for_matrix<kPack>(whole_block(), static_cast<int>(x.rows), static_cast<int>(x.columns), shift, [&](int row, int c) {
    const int i = row & (C - 1);
    const float f = factor[i] * (second ? second[i] : 1.0f) * sign;
    const auto from = pack_at<kPack>(row_of(x, z, row) + c);
    Pack<T, kPack> to;
#pragma unroll
    for (int e = 0; e < kPack; ++e) to.v[e] = narrow<T>(widen(from.v[e]) * f);
    put_pack<kPack>(row_of(out, z, row) + c, to);
  });
}

// A block for each matrix, a group of at most 32 lanes for each row.
template <int kPack, typename T>
__global__ void row_dots_kernel(Matrices<const T> a, Matrices<const float> b, int shift, float* sums) {
  const int64_t z = blockIdx.x;
  const int lanes = 1 << shift, lane = threadIdx.x & (lanes - 1), rows = static_cast<int>(a.rows);
  for (int base = 0; base < rows; base += kThreads >> shift) {
    const int row = base + (threadIdx.x >> shift);
    float sum = 0;
    for (int c = lane * kPack; row < rows && c < a.columns; c += lanes * kPack) {
      const auto xs = pack_at<kPack>(row_of(a, z, row) + c);
      const auto ys = pack_at<kPack>(row_of(b, z, row) + c);
#pragma unroll
      for (int e = 0; e < kPack; ++e) sum += widen(xs.v[e]) * ys.v[e];
    }
    sum = group_sum(sum, lanes);
    if (row < rows && lane == 0) sums[z * rows + row] = sum;
  }
}

// The chunks of sequence b, from its first or, backward, from its last, and their rows of states.
struct Chunks {
  const StatePass& pass;
  int64_t b;
  SequenceChunks of_sequence;
  int64_t count;
  __device__ Chunks(const StatePass& pass, int64_t b)
      : pass(pass),
        b(b),
        of_sequence(pass.first, pass.steps, pass.sequences, static_cast<int>(b)),
        count(of_sequence.count) {}
  __device__ int64_t chunk(int64_t n) const {
    return of_sequence.chunk(static_cast<int>(pass.backward ? count - 1 - n : n));
  }
  __device__ int64_t row(int64_t n) const { return chunk(n) + (pass.backward ? 0 : pass.sequences); }
  __device__ int64_t begin_row() const { return pass.backward ? pass.chunks + b : b; }
};

// The state before a chunk, where it is wanted.
__device__ __forceinline__ void keep(const StatePass& pass, int64_t z, int64_t row, int64_t column, float x) {
  if (!pass.before) return;
  const int64_t at = z * pass.before_batch + row * pass.Vd + column;
  if (pass.before_bf16)
    static_cast<Bf16*>(pass.before)[at] = narrow<Bf16>(x);
  else
    static_cast<float*>(pass.before)[at] = x;
}

// A thread for each element of the state; what a few chunks add is read ahead.
__global__ void pass_scaled_kernel(StatePass pass) {
  constexpr int kAhead = 8;
  const int64_t size = pass.Kd * pass.Vd, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= size) return;
  const int64_t head = blockIdx.y;
  const Chunks chunks(pass, blockIdx.z);
  const auto state = [&](int64_t row) { return pass.states + (row * pass.heads + head) * size + i; };
  const int64_t row_in = i / pass.Vd, column = i % pass.Vd;
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
        keep(pass, chunks.chunk(n + e) * pass.heads + head, row_in, column, S);
        S = factor[e] * S + added[e];
        *state(chunks.row(n + e)) = S;
      }
  }
}

// A block takes kColumns columns of the state through all chunks. A thread sums a part of two rows' products, for all
// columns; parts are added up through shared memory. What the next chunk needs of memory is asked for a chunk ahead.
constexpr int kColumns = 16;
constexpr int kParts = 4;
template <int kKd>
__global__ void __launch_bounds__(kParts* kKd / 2) pass_matrices_kernel(StatePass pass) {
  constexpr int kPassThreads = kParts * kKd / 2, kPart = kKd / kParts, kPitch = kKd + 1;
  constexpr int kOwn = kKd * kColumns / kPassThreads;  // elements of the state that a thread adds up
  __shared__ float4 S[kKd * kColumns / 4];
  __shared__ float sums[kParts * kColumns * kPitch];
  float* const S_at = reinterpret_cast<float*>(S);
  const int64_t size = static_cast<int64_t>(kKd) * pass.Vd, head = blockIdx.y, column = blockIdx.x * kColumns;
  const Chunks chunks(pass, blockIdx.z);
  const int i = threadIdx.x % (kKd / 2), part = threadIdx.x / (kKd / 2);  // rows i and i + kKd / 2
  const auto state = [&](int64_t row, int at) {
    return pass.states + (row * pass.heads + head) * size + at / kColumns * pass.Vd + column + at % kColumns;
  };
  const auto there = [&](int at) { return column + at % kColumns < pass.Vd; };
  float m[2][kPart], next[2][kPart], next_own[kOwn];
  const auto ask = [&](int64_t n) {
    if (n >= chunks.count) return;
    const float* M = pass.M + (chunks.chunk(n) * pass.heads + head) * kKd * kKd + part * kPart * kKd + i;
#pragma unroll
    for (int l = 0; l < kPart; ++l) next[0][l] = M[l * kKd], next[1][l] = M[l * kKd + kKd / 2];
#pragma unroll
    for (int e = 0; e < kOwn; ++e) {
      const int at = threadIdx.x + e * kPassThreads;
      next_own[e] = there(at) ? *state(chunks.row(n), at) : 0.0f;
    }
  };
  ask(0);
#pragma unroll
  for (int e = 0; e < kOwn; ++e) {
    const int at = threadIdx.x + e * kPassThreads;
    S_at[at] = there(at) ? *state(chunks.begin_row(), at) : 0.0f;
  }
  __syncthreads();
  for (int64_t n = 0; n < chunks.count; ++n) {
    float own[kOwn];
#pragma unroll
    for (int l = 0; l < kPart; ++l) m[0][l] = next[0][l], m[1][l] = next[1][l];
#pragma unroll
    for (int e = 0; e < kOwn; ++e) own[e] = next_own[e];
    ask(n + 1);
    float acc[2][kColumns] = {};
#pragma unroll
    for (int l = 0; l < kPart; ++l)
#pragma unroll
      for (int c = 0; c < kColumns / 4; ++c) {
        const float4 s = S[(part * kPart + l) * (kColumns / 4) + c];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          acc[r][4 * c] += m[r][l] * s.x, acc[r][4 * c + 1] += m[r][l] * s.y;
          acc[r][4 * c + 2] += m[r][l] * s.z, acc[r][4 * c + 3] += m[r][l] * s.w;
        }
      }
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int r = 0; r < 2; ++r) sums[(part * kColumns + c) * kPitch + i + r * (kKd / 2)] = acc[r][c];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kOwn; ++e) {
      const int at = threadIdx.x + e * kPassThreads;
      float sum = own[e];
      if (there(at)) keep(pass, chunks.chunk(n) * pass.heads + head, at / kColumns, column + at % kColumns, S_at[at]);
#pragma unroll
      for (int p = 0; p < kParts; ++p) sum += sums[(p * kColumns + at % kColumns) * kPitch + at / kColumns];
      S_at[at] = sum;
      if (there(at)) *state(chunks.row(n), at) = sum;
    }
    __syncthreads();
  }
}

}  // namespace

template <typename In, typename T>
void cut(const Placement& placement, const In* x, const int64_t* row_of_token, int64_t heads, Matrices<T> out) {
  constexpr int kPack = kFull<T>;
  const int64_t places = out.batches / heads * placement.C;
  if (places == 0 || out.columns == 0) return;
  const bool packs = rows_packed<kPack>(out) && aligned(x, std::min<size_t>(16, kPack * sizeof(In)));
  const auto kernel = packs ? cut_kernel<kPack, In, T> : cut_kernel<1, In, T>;
  const int shift = lanes_shift(out.columns, packs ? kPack : 1);
  const TokenTeams teams(places, heads * out.rows / placement.C, shift);
  kernel<<<teams.blocks(), kThreads, 0, current_stream()>>>(teams, placement, x, row_of_token, static_cast<int>(heads),
                                                            shift, out);
  check_launch("cut");
}

template <typename In, typename T>
void join(const Placement& placement, Matrices<const In> x, const int64_t* read, int64_t rows, int64_t heads,
          float sign, T* out) {
  constexpr int kPack = kFull<T>;
  if (rows == 0 || x.columns == 0) return;
  const bool packs = rows_packed<kPack>(x) && aligned(out, 16);
  const auto kernel = packs ? join_kernel<kPack, In, T> : join_kernel<1, In, T>;
  const int shift = lanes_shift(x.columns, packs ? kPack : 1);
  const TokenTeams teams(rows, heads * x.rows / placement.C, shift);
  kernel<<<teams.blocks(), kThreads, 0, current_stream()>>>(teams, placement, x, read, static_cast<int>(heads), shift,
                                                            sign, out);
  check_launch("join");
}

template <typename T>
void decay_scores(Matrices<const float> scores, const double* G, const float* w, int64_t strict, Matrices<T> out) {
  if (scores.batches == 0) return;
  decay_scores_kernel<kFull<T>, T><<<blocks(scores.batches, 1), kThreads, 0, current_stream()>>>(
      scores, G, w, static_cast<int>(strict), lanes_shift(scores.columns, kFull<T>), out);
  check_launch("decay_scores");
}

template <typename T>
void unit_lower_inverse(Matrices<const float> scores, const double* G, const float* w, Matrices<T> out) {
  if (scores.batches == 0) return;
  const int size = std::max<int>(kInverseBase, static_cast<int>(scores.columns));
  const int bytes = (size * (size + 1) + size * size / 4) * static_cast<int>(sizeof(float));
  cudaFuncSetAttribute(inverse_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  inverse_kernel<<<static_cast<unsigned>(scores.batches), kInverseThreads, bytes, current_stream()>>>(scores, G, w, out,
                                                                                                      size);
  check_launch("unit_lower_inverse");
}

template <typename In, typename T>
void scale_rows(Matrices<const In> x, int64_t C, const float* factor, const float* second, float sign,
                Matrices<T> out) {
  constexpr int kPack = kFull<T>;
  if (x.batches == 0 || x.columns == 0) return;
  const bool packs = rows_packed<kPack>(x) && rows_packed<kPack>(out);
  const auto kernel = packs ? scale_rows_kernel<kPack, In, T> : scale_rows_kernel<1, In, T>;
  kernel<<<blocks(x.batches, 1), kThreads, 0, current_stream()>>>(x, static_cast<int>(C), factor, second, sign,
                                                                  lanes_shift(x.columns, packs ? kPack : 1), out);
  check_launch("scale_rows");
}

template <typename T>
void row_dots(Matrices<const T> a, Matrices<const float> b, float* sums) {
  if (a.batches * a.rows == 0) return;
  constexpr int kPack = kFull<T>;
  const bool packs = rows_packed<kPack>(a) && rows_packed<kPack>(b);
  const auto kernel = packs ? row_dots_kernel<kPack, T> : row_dots_kernel<1, T>;
  const int shift = std::min(5, lanes_shift(a.columns, packs ? kPack : 1));
  kernel<<<blocks(a.batches, 1), kThreads, 0, current_stream()>>>(a, b, shift, sums);
  check_launch("row_dots");
}

void pass_states(const StatePass& pass) {
  if (pass.chunks == 0) return;
  const auto heads = static_cast<unsigned>(pass.heads), sequences = static_cast<unsigned>(pass.sequences);
  if (!pass.M) {
    const dim3 grid(blocks(pass.Kd * pass.Vd, kThreads), heads, sequences);
    pass_scaled_kernel<<<grid, kThreads, 0, current_stream()>>>(pass);
  } else {
    const dim3 grid(blocks(pass.Vd, kColumns), heads, sequences);
    if (pass.Kd == 128) pass_matrices_kernel<128><<<grid, kParts * 128 / 2, 0, current_stream()>>>(pass);
    if (pass.Kd == 64) pass_matrices_kernel<64><<<grid, kParts * 64 / 2, 0, current_stream()>>>(pass);
    if (pass.Kd == 32) pass_matrices_kernel<32><<<grid, kParts * 32 / 2, 0, current_stream()>>>(pass);
    if (pass.Kd == 16) pass_matrices_kernel<16><<<grid, kParts * 16 / 2, 0, current_stream()>>>(pass);
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

#define ORYX_INSTANTIATE_CUT(In, T) \
  template void cut<In, T>(const Placement&, const In*, const int64_t*, int64_t, Matrices<T>);
ORYX_INSTANTIATE_CUT(float, float)
ORYX_INSTANTIATE_CUT(float, double)
ORYX_INSTANTIATE_CUT(Bf16, Bf16)
#define ORYX_INSTANTIATE_JOIN(In, T) \
  template void join<In, T>(const Placement&, Matrices<const In>, const int64_t*, int64_t, int64_t, float, T*);
ORYX_INSTANTIATE_JOIN(float, float)
ORYX_INSTANTIATE_JOIN(float, Bf16)
ORYX_INSTANTIATE_JOIN(Bf16, Bf16)

}  // namespace oryx::ops::cuda
