#include "ops/common/recurrence_tiles.cuh"

namespace oryx::ops::cuda {
namespace {

template <int kDim>
constexpr int kLocalBytes = 3 * tile_bytes(kTile, kDim) + kGateFloats * 4;

// sums += (Q K^T o D)^T dO for rows of keys, Q, K and dO the tiles of one member of the group.
template <int kPitch, int kDim>
__device__ __forceinline__ void add_local(float (&sums)[8][4], const WarpPlace& warp, const Gates& gates, const Bf16* Q,
                                          const Bf16* K, const Bf16* dO) {
  const auto later = [&](int k) { return k >= warp.row_tile; };
  float scores[8][4] = {};
  multiply<kDim / 16>(
      scores, [&](int k) { return left<kPitch>(K, warp.row, 16 * k); },
      [&](int k, int n) { return right_transposed<kPitch>(Q, 16 * k, 16 * n); }, Always(), later);
  for_sums(scores, [&](int j, int i, float& x) {
    j += warp.row;
    x = j <= i ? x * gates.decay(i, j) : 0.0f;
  });
  multiply<kTile / 16>(
      sums, [&](int k) { return as_left(scores[2 * k], scores[2 * k + 1]); },
      [&](int k, int n) { return right<kPitch>(dO, 16 * k, warp.column + 16 * n); }, later, Always());
}

template <int kDim>
__global__ void __launch_bounds__(kChunkThreads<kDim>) local_kernel(Recurrence r, RecurrenceGradients grad) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kPitch = pitch_of(kDim);
  SharedMemory memory{shared};
  Bf16* const Q = memory.tile(kTile, kDim);
  Bf16* const K = memory.tile(kTile, kDim);
  Bf16* const dO = memory.tile(kTile, kDim);
  const Gates gates{memory.floats(kGateFloats)};
  const ChunkRows rows = ChunkRows::of_block(r);
  const int64_t z = rows.z;
  rows.copy_keys<kDim>(K, r.k);
  rows.copy_gates(gates.data);
  const WarpPlace warp;
  float H[8][4] = {};
  for (int member = 0; member < r.group; ++member) {
    rows.copy_queries<kDim>(Q, r.q, member);
    rows.copy_queries<kDim>(dO, grad.o, member);
    end_copies();
    wait_for_copies<0>();
    __syncthreads();
    add_local<kPitch, kDim>(H, warp, gates, Q, K, dO);
    __syncthreads();
  }
  store_rows(H, warp.row, grad.H, [&](int i) { return (z * kTile + i) * kDim + warp.column; });
}

// As pass_kernel, from the last chunk on.
constexpr int kBackColumns = 32, kBackThreads = 128, kBackStages = 2;
template <int kDim, bool kDelta>
constexpr int back_stage_bytes(int group) {
  return (kDelta ? 2 * tile_bytes(kTile, kDim) + tile_bytes(kTile, kBackColumns) : 0) +
         group * (tile_bytes(kTile, kDim) + tile_bytes(kTile, kBackColumns)) + kGateFloats * 4;
}
template <int kDim, bool kDelta>
constexpr int back_bytes(int group) {
  return kBackStages * back_stage_bytes<kDim, kDelta>(group) + tile_bytes(kDim, kBackColumns) +
         (kDelta ? tile_bytes(kTile, kBackColumns) : 0);
}

template <int kDim, bool kDelta>
__global__ void __launch_bounds__(kBackThreads) back_kernel(Recurrence r, RecurrenceGradients grad, int stage_bytes) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kPitch = pitch_of(kDim), kNarrow = pitch_of(kBackColumns), kTiles = kDim / 64, kN = kBackColumns / 8;
  struct Stage {
    Bf16 *K, *W, *H, *readers;  // of each member of the group: Q and dO
    Gates gates;
    __device__ Stage(unsigned char* at) {
      SharedMemory memory{at};
      gates = {memory.floats(kGateFloats)};
      K = kDelta ? memory.tile(kTile, kDim) : nullptr;
      W = kDelta ? memory.tile(kTile, kDim) : nullptr;
      H = kDelta ? memory.tile(kTile, kBackColumns) : nullptr;
      readers = reinterpret_cast<Bf16*>(memory.at);
    }
    __device__ Bf16* Q(int member) const { return readers + member * kTile * (kPitch + kNarrow); }
    __device__ Bf16* dO(int member) const { return Q(member) + kTile * kPitch; }
  };
  const auto stage_of = [&](int n) { return Stage(shared + (n % kBackStages) * stage_bytes); };
  SharedMemory memory{shared + kBackStages * stage_bytes};
  Bf16* const dS_tile = memory.tile(kDim, kBackColumns);
  Bf16* const minus_wH = kDelta ? memory.tile(kTile, kBackColumns) : nullptr;

  const int column = blockIdx.x * kBackColumns, head = blockIdx.y, warp = threadIdx.x / kWarp;
  const SequenceChunks chunks(r.first, r.steps, r.placement.sequences, blockIdx.z);
  const auto chunk_of = [&](int n) { return chunks.chunk(chunks.count - 1 - n); };
  const auto ask = [&](int n) {
    if (n < chunks.count) {
      const Stage stage = stage_of(n);
      const ChunkRows rows(r, chunk_of(n), head);
      if (kDelta) {
        rows.copy_keys<kDim>(stage.K, r.k);
        copy_matrix<kTile, kDim>(stage.W, r.W + rows.z * kTile * kDim, kDim);
        copy_matrix<kTile, kBackColumns>(stage.H, grad.H + rows.z * kTile * kDim + column, kDim);
      }
      for (int member = 0; member < r.group; ++member) {
        rows.copy_queries<kDim>(stage.Q(member), r.q, member);
        rows.copy_queries<kBackColumns>(stage.dO(member), grad.o + column, member);
      }
      rows.copy_gates(stage.gates.data);
    }
    end_copies();
  };
  const int64_t sequence = r.order ? r.order[blockIdx.z] : blockIdx.z;
  const int64_t state_at = (sequence * r.heads + head) * kDim * kDim + column;
  const auto state_row = [&](int tile) { return 16 * (warp * kTiles + tile); };

#pragma unroll
  for (int n = 0; n + 1 < kBackStages; ++n) ask(n);
  float dS[kTiles][kN][4];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    for_sums(dS[tile], [&](int i, int c, float& x) {
      x = grad.final_state ? grad.final_state[state_at + (state_row(tile) + i) * kDim + c] : 0.0f;
    });
    store_tile(dS[tile], dS_tile + state_row(tile) * kNarrow, kNarrow);
  }
  for (int n = 0; n < chunks.count; ++n) {
    wait_for_copies<kBackStages - 2>();
    __syncthreads();
    ask(n + kBackStages - 1);
    const Stage stage = stage_of(n);
    const int64_t z = static_cast<int64_t>(chunk_of(n)) * r.heads + head;
    for (int at = threadIdx.x; at < kDim * kBackColumns / 8; at += kBackThreads) {
      const int row = at / (kBackColumns / 8), c = at % (kBackColumns / 8) * 8;
      put_pack<8>(grad.end + (z * kDim + row) * kDim + column + c, pack_at<8>(dS_tile + row * kNarrow + c));
    }
    if (kDelta) {
      float H[kN][4] = {};
      multiply<kDim / 16>(
          H, [&](int k) { return left<kPitch>(stage.K, 16 * warp, 16 * k); },
          [&](int k, int c) { return right<kNarrow>(dS_tile, 16 * k, 16 * c); });
      for_pairs(H, [&](int i, int c, float& a, float& b) {
        i += 16 * warp;
        const uint32_t local = pair_at(static_cast<const Bf16*>(stage.H) + i * kNarrow + c);
        a = low_of(local) + a * stage.gates.f(i), b = high_of(local) + b * stage.gates.f(i);
        pair_at(grad.H + (z * kTile + i) * kDim + column + c) = pack_pair(a, b);
        const float factor = -stage.gates.w(i);
        pair_at(minus_wH + i * kNarrow + c) = pack_pair(a * factor, b * factor);
      });
    }
    __syncthreads();
    const float last = stage.gates.last();
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      for_sums(dS[tile], [&](int, int, float& x) { x *= last; });
      for (int member = 0; member < r.group; ++member)
        multiply<kTile / 16>(
            dS[tile], [&](int k) { return left_transposed<kPitch>(stage.Q(member), state_row(tile), 16 * k); },
            [&](int k, int c) {
              return rows_times(right<kNarrow>(stage.dO(member), 16 * k, 16 * c),
                                [&](int i) { return stage.gates.e(16 * k + i); });
            });
      if (kDelta)
        multiply<kTile / 16>(
            dS[tile], [&](int k) { return left_transposed<kPitch>(stage.W, state_row(tile), 16 * k); },
            [&](int k, int c) { return right<kNarrow>(minus_wH, 16 * k, 16 * c); });
      store_tile(dS[tile], dS_tile + state_row(tile) * kNarrow, kNarrow);
    }
  }
  wait_for_copies<0>();
  if (!grad.initial) return;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
    for_sums(dS[tile], [&](int i, int c, float x) { grad.initial[state_at + (state_row(tile) + i) * kDim + c] = x; });
}

// Sums over rows that the warps of a chunk have parts of, for up to two halves of the columns.
struct RowSums {
  float* data;  // [halves, kTile]
  __device__ void put(const WarpPlace& warp, float (&parts)[2]) {
    add_over_columns(parts);
    if ((lane_id() & 3) == 0)
      for (int i = 0; i < 2; ++i) data[warp.half * kTile + warp.row + (lane_id() >> 2) + 8 * i] = parts[i];
  }
  template <int kHalves>
  __device__ float at(int i) const {
    float sum = data[i];
    if (kHalves == 2) sum += data[kTile + i];
    return sum;
  }
};

template <int kDim>
constexpr int gradient_bytes(bool delta) {
  return 5 * tile_bytes(kTile, kDim) + 2 * tile_bytes(kDim, kDim) + (delta ? tile_bytes(kTile, kTile) : 0) +
         (kGateFloats + 3 * kTile * kDim / 64 + 8) * 4;
}

template <int kDim, bool kDelta>
__global__ void __launch_bounds__(kChunkThreads<kDim>, kDim == 64 ? 3 : 1)
    gradients_kernel(Recurrence r, RecurrenceGradients grad) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kPitch = pitch_of(kDim), kSquare = pitch_of(kTile), kHalves = kDim / 64;
  SharedMemory memory{shared};
  Bf16* const K = memory.tile(kTile, kDim);
  Bf16* const Y = memory.tile(kTile, kDim);
  Bf16* const X = memory.tile(kTile, kDim);  // delta rule: H, and then minus the gradient of V - e K S
  Bf16* const Q = memory.tile(kTile, kDim);
  Bf16* const dO = memory.tile(kTile, kDim);
  Bf16* const S = memory.tile(kDim, kDim);
  Bf16* const dS = memory.tile(kDim, kDim);
  Bf16* const T = kDelta ? memory.tile(kTile, kTile) : nullptr;
  const Gates gates{memory.floats(kGateFloats)};
  RowSums w_sums{memory.floats(kHalves * kTile)}, passed_sums{memory.floats(kHalves * kTile)},
      G_sums{memory.floats(kHalves * kTile)};
  float* const warp_sums = memory.floats(8);

  const ChunkRows rows = ChunkRows::of_block(r);
  const int64_t z = rows.z;
  rows.copy_keys<kDim>(K, r.k);
  if (kDelta) {
    copy_matrix<kTile, kDim>(Y, r.y + z * kTile * kDim, kDim);
    copy_matrix<kTile, kDim>(X, grad.H + z * kTile * kDim, kDim);
    copy_matrix<kTile, kTile>(T, r.T + z * kTile * kTile, kTile);
  } else {
    rows.copy_keys<kDim>(Y, r.v);
  }
  copy_matrix<kDim, kDim>(S, r.before + z * kDim * kDim, kDim);
  copy_matrix<kDim, kDim>(dS, grad.end + z * kDim * kDim, kDim);
  rows.copy_gates(gates.data);
  rows.copy_queries<kDim>(Q, r.q, 0);
  rows.copy_queries<kDim>(dO, grad.o, 0);
  end_copies();
  wait_for_copies<0>();
  __syncthreads();

  const WarpPlace warp;
  const auto earlier = [&](int k) { return k <= warp.row_tile; };
  const auto later = [&](int k) { return k >= warp.row_tile; };
  const auto key_offset = [&](int i) { return rows.key_offset(i); };
  // The dots of a warp's sums with a tile's rows, of which it has the part in its columns.
  const auto add_dots = [&](float(&to)[2], float(&sums)[8][4], const Bf16* tile, float factor) {
    for_sums(sums, [&](int i, int c, float x) {
      to[i >> 3] += factor * x * widen(tile[(warp.row + i) * kPitch + warp.column + c]);
    });
  };

  float state_sum = 0;  // of S times dS
#pragma unroll
  for (int p = 0; p < kDim * kDim / 8 / kChunkThreads<kDim>; ++p) {
    const int at = threadIdx.x + p * kChunkThreads<kDim>, place = at / (kDim / 8) * kPitch + at % (kDim / 8) * 8;
    const auto a = pack_at<8>(S + place), b = pack_at<8>(dS + place);
#pragma unroll
    for (int e = 0; e < 8; ++e) state_sum += widen(a.v[e]) * widen(b.v[e]);
  }
  state_sum = group_sum(state_sum, kWarp);
  if (lane_id() == 0) warp_sums[threadIdx.x / kWarp] = state_sum;

  float H[8][4], w_parts[2] = {};
  if (kDelta) {
    float minus_dV[8][4] = {};
    multiply<kTile / 16>(
        minus_dV, [&](int k) { return left_transposed<kSquare>(T, warp.row, 16 * k); },
        [&](int k, int n) {
          return rows_times(right<kPitch>(X, 16 * k, warp.column + 16 * n), [&](int i) { return gates.w(16 * k + i); });
        },
        later, Always());
    store_rows(minus_dV, warp.row, grad.v + warp.column, key_offset);
    for_sums(minus_dV, [](int, int, float& x) { x = -x; });
    for_sums(H, [&](int i, int c, float& x) { x = widen(X[(warp.row + i) * kPitch + warp.column + c]); });
    __syncthreads();
    store_tile(minus_dV, X + warp.row * kPitch + warp.column, kPitch);
    __syncthreads();
    float scores[8][4] = {};
    multiply<kDim / 16>(
        scores, [&](int k) { return left<kPitch>(K, warp.row, 16 * k); },
        [&](int k, int n) { return right_transposed<kPitch>(K, 16 * k, 16 * n); }, Always(), later);
    for_sums(scores, [&](int j, int i, float& x) {
      j += warp.row;
      x = j < i ? x * gates.decay(i, j) : 0.0f;
    });
    multiply<kTile / 16>(
        H, [&](int k) { return as_left(scores[2 * k], scores[2 * k + 1]); },
        [&](int k, int n) { return right<kPitch>(X, 16 * k, warp.column + 16 * n); }, later, Always());
    add_dots(w_parts, H, Y, 1);
  } else {
    for_sums(H, [](int, int, float& x) { x = 0.0f; });
    multiply<kDim / 16>(
        H, [&](int k) { return left<kPitch>(K, warp.row, 16 * k); },
        [&](int k, int n) { return right<kPitch>(dS, 16 * k, warp.column + 16 * n); });
    for_sums(H, [&](int i, int, float& x) { x *= gates.f(warp.row + i); });
  }

  // Of G's gradient, x . reading for each reader and then minus k . (what dK gets through dB): the rest of dK, twice or
  // once, less all of it. First what writes pass on to the last state.
  float dK[8][4] = {}, G_parts[2] = {}, passed[2] = {};
  multiply<kDim / 16>(
      dK, [&](int k) { return left<kPitch>(Y, warp.row, 16 * k); },
      [&](int k, int n) { return right_transposed<kPitch>(dS, 16 * k, warp.column + 16 * n); });
  for_sums(dK, [&](int i, int, float& x) { x *= gates.w(warp.row + i) * gates.f(warp.row + i); });
  add_dots(passed, dK, K, 1);
  G_parts[0] = passed[0], G_parts[1] = passed[1];
  passed_sums.put(warp, passed);

  const auto read = [&](const Bf16* x, const Bf16* d, bool strict, auto&& use) {
    float scores[8][4] = {}, reading[8][4] = {};
    multiply<kDim / 16>(
        scores, [&](int k) { return left<kPitch>(d, warp.row, 16 * k); },
        [&](int k, int n) { return right_transposed<kPitch>(Y, 16 * k, 16 * n); }, Always(), earlier);
    for_sums(scores, [&](int i, int j, float& s) {
      i += warp.row;
      s = j + strict <= i ? s * gates.decay(i, j) * gates.w(j) : 0.0f;
    });
    multiply<kDim / 16>(
        reading, [&](int k) { return left<kPitch>(d, warp.row, 16 * k); },
        [&](int k, int n) { return right_transposed<kPitch>(S, 16 * k, warp.column + 16 * n); });
    for_sums(reading, [&](int i, int, float& s) { s *= gates.e(warp.row + i); });
    multiply<kTile / 16>(
        reading, [&](int k) { return as_left(scores[2 * k], scores[2 * k + 1]); },
        [&](int k, int n) { return right<kPitch>(K, 16 * k, warp.column + 16 * n); }, earlier, Always());
    add_dots(G_parts, reading, x, strict ? 2 : 1);
    use(reading);
    for_sums(scores, [](int, int, float& s) { s = 0.0f; });
    multiply<kDim / 16>(
        scores, [&](int k) { return left<kPitch>(Y, warp.row, 16 * k); },
        [&](int k, int n) { return right_transposed<kPitch>(d, 16 * k, 16 * n); }, Always(), later);
    for_sums(scores, [&](int j, int i, float& s) {
      j += warp.row;
      s = j + strict <= i ? s * gates.decay(i, j) * gates.w(j) : 0.0f;
    });
    multiply<kTile / 16>(
        dK, [&](int k) { return as_left(scores[2 * k], scores[2 * k + 1]); },
        [&](int k, int n) { return right<kPitch>(x, 16 * k, warp.column + 16 * n); }, later, Always());
  };
  for (int member = 0; member < r.group; ++member) {
    if (member > 0) {
      __syncthreads();
      rows.copy_queries<kDim>(Q, r.q, member);
      rows.copy_queries<kDim>(dO, grad.o, member);
      end_copies();
      wait_for_copies<0>();
      __syncthreads();
    }
    if (!kDelta) add_local<kPitch, kDim>(H, warp, gates, Q, K, dO);
    read(Q, dO, false, [&](float(&reading)[8][4]) {
      store_rows(reading, warp.row, grad.q + warp.column, [&](int i) { return rows.query_offset(i, member); });
    });
  }
  if (kDelta)
    read(K, X, true, [&](float(&reading)[8][4]) {
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) dK[n][e] += reading[n][e];
    });

  if (!kDelta) {
    add_dots(w_parts, H, Y, 1);
    for_sums(H, [&](int i, int, float& x) { x *= gates.w(warp.row + i); });
    store_rows(H, warp.row, grad.v + warp.column, key_offset);
  }
  add_dots(G_parts, dK, K, -1);
  G_sums.put(warp, G_parts);
  w_sums.put(warp, w_parts);
  store_rows(dK, warp.row, grad.k + warp.column, key_offset);
  __syncthreads();
  if (threadIdx.x >= kWarp) return;

  // dg: of G's gradients those of this token and later ones, of what is passed on what came before, two tokens a lane.
  const int lane = lane_id();
  float to_last = 0;
#pragma unroll
  for (int i = 0; i < kChunkThreads<kDim> / kWarp; ++i) to_last += warp_sums[i];
  to_last *= gates.last();
  const float dG[2] = {G_sums.at<kHalves>(2 * lane), G_sums.at<kHalves>(2 * lane + 1)};
  const float on[2] = {passed_sums.at<kHalves>(2 * lane), passed_sums.at<kHalves>(2 * lane + 1)};
  float from = dG[0] + dG[1], upto = on[0] + on[1];  // inclusive sums from the end and from the start
  for (int step = 1; step < kWarp; step *= 2) {
    const float next = __shfl_down_sync(kAllLanes, from, step), before = __shfl_up_sync(kAllLanes, upto, step);
    if (lane + step < kWarp) from += next;
    if (lane >= step) upto += before;
  }
  float later_ones = __shfl_down_sync(kAllLanes, from, 1), earlier_ones = __shfl_up_sync(kAllLanes, upto, 1);
  if (lane == kWarp - 1) later_ones = 0;
  if (lane == 0) earlier_ones = 0;
  const float dg[2] = {from + earlier_ones + to_last, dG[1] + later_ones + earlier_ones + on[0] + to_last};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t at = rows.gate_offset(2 * lane + i);
    if (at >= 0) grad.g[at] = dg[i], grad.w[at] = w_sums.at<kHalves>(2 * lane + i);
  }
}

template <int kDim, bool kDelta>
void backward(const Recurrence& in, const RecurrenceGradients& grad) {
  const auto Z = static_cast<unsigned>(in.chunks * in.heads), sequences = static_cast<unsigned>(in.placement.sequences);
  if (kDelta && Z > 0) launch<local_kernel<kDim>>("local", Z, kChunkThreads<kDim>, kLocalBytes<kDim>, in, grad);
  launch<back_kernel<kDim, kDelta>>("back", dim3(kDim / kBackColumns, in.heads, sequences), kBackThreads,
                                    back_bytes<kDim, kDelta>(in.group), in, grad,
                                    back_stage_bytes<kDim, kDelta>(in.group));
  if (Z > 0)
    launch<gradients_kernel<kDim, kDelta>>("gradients", Z, kChunkThreads<kDim>, gradient_bytes<kDim>(kDelta), in, grad);
}

}  // namespace

bool can_use_tiles(bool delta, int64_t group, int64_t Kd, int64_t Vd) {
  if (Kd != Vd || (Kd != 64 && Kd != 128) || group > 8) return false;
  int device = 0, major = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const int members = static_cast<int>(group);
  const int wanted = Kd == 64 ? std::max(delta ? back_bytes<64, true>(members) : back_bytes<64, false>(members),
                                         gradient_bytes<64>(delta))
                              : std::max(delta ? back_bytes<128, true>(members) : back_bytes<128, false>(members),
                                         gradient_bytes<128>(delta));
  return major >= 8 && wanted <= bytes;
}

void recurrence_tiles_backward(const Recurrence& in, const RecurrenceGradients& grad) {
  if (in.placement.sequences == 0) return;
  if (in.dim == 64)
    in.delta ? backward<64, true>(in, grad) : backward<64, false>(in, grad);
  else
    in.delta ? backward<128, true>(in, grad) : backward<128, false>(in, grad);
}

}  // namespace oryx::ops::cuda
