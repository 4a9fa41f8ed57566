#include "ops/common/lower_inverse.cuh"
#include "ops/common/recurrence_tiles.cuh"

namespace oryx::ops::cuda {
namespace {

// A warp for each chunk and head, two neighbouring tokens a lane. At the clamp exp is zero in float.
__global__ void gates_kernel(Recurrence r) {
  const unsigned z = blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp, chunk = z / r.heads;
  if (chunk >= r.chunks) return;
  const ChunkRows rows(r, static_cast<int>(chunk), static_cast<int>(z - chunk * r.heads));
  const int lane = lane_id();
  float g[2], w[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t at = rows.gate_offset(2 * lane + i);
    g[i] = at < 0 ? 0.0f : r.g[at], w[i] = at < 0 ? 0.0f : r.w[at];
    if (g[i] < -104.0f) g[i] = -104.0f;
  }
  float G = g[0] + g[1];
  for (int step = 1; step < kWarp; step *= 2) {
    const float before = __shfl_up_sync(kAllLanes, G, step);
    if (lane >= step) G += before;
  }
  const float last = __shfl_sync(kAllLanes, G, kWarp - 1), before = __shfl_up_sync(kAllLanes, G, 1);
  const float sums[2] = {(lane == 0 ? 0.0f : before) + g[0], G};
  float* const out = r.gates + rows.z * kGateFloats + 2 * lane;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    out[i] = sums[i], out[kTile + i] = w[i];
    out[2 * kTile + i] = __expf(sums[i]), out[3 * kTile + i] = __expf(last - sums[i]);
  }
}

template <int kDim>
constexpr int kPrepareBytes = 2 * tile_bytes(kTile, kDim) + (kGateFloats + kTile * (kTile + 1) + kTile * kTile / 4) * 4;

template <int kDim>
__global__ void __launch_bounds__(kChunkThreads<kDim>) prepare_kernel(Recurrence r) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kPitch = pitch_of(kDim), kTPitch = kTile + 1, kN = 8 * kTile / kDim;
  SharedMemory memory{shared};
  Bf16* const K = memory.tile(kTile, kDim);
  Bf16* const V = memory.tile(kTile, kDim);
  const Gates gates{memory.floats(kGateFloats)};
  float* const between = memory.floats(kTile * kTile / 4);
  float* const T = memory.floats(kTile * kTPitch);
  const ChunkRows rows = ChunkRows::of_block(r);
  const int64_t z = rows.z;
  rows.copy_keys<kDim>(K, r.k);
  rows.copy_keys<kDim>(V, r.v);
  rows.copy_gates(gates.data);
  end_copies();
  wait_for_copies<0>();
  __syncthreads();

  const WarpPlace warp;
  float scores[kN][4] = {};
  const int first = warp.half * 8 * kN;
  multiply<kDim / 16>(
      scores, [&](int k) { return left<kPitch>(K, warp.row, 16 * k); },
      [&](int k, int n) { return right_transposed<kPitch>(K, 16 * k, first + 16 * n); });
  for_sums(scores, [&](int i, int j, float x) {
    i += warp.row, j += first;
    T[i * kTPitch + j] = j < i ? x * gates.decay(i, j) * gates.w(j) : 0.0f;
  });
  __syncthreads();
  invert_unit_lower(T, kTile, kTPitch, between, kChunkThreads<kDim>);

  // T, its columns times factor where there is one.
  const auto T_fragment = [&](int k, const float* factor) {
    Fragment t;
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int i = warp.row + (lane_id() >> 2) + (part & 1) * 8, j = 16 * k + (lane_id() & 3) * 2 + (part >> 1) * 8;
      const float* const at = T + i * kTPitch + j;
      t.r[part] = factor ? pack_pair(at[0] * factor[j], at[1] * factor[j + 1]) : pack_pair(at[0], at[1]);
    }
    return t;
  };
  const auto below = [&](int k) { return k <= warp.row_tile; };
  float sums[8][4] = {};
  multiply<kTile / 16>(
      sums, [&](int k) { return T_fragment(k, nullptr); },
      [&](int k, int n) { return right<kPitch>(V, 16 * k, warp.column + 16 * n); }, below, Always());
  const auto row_of_chunk = [&](int i) { return (z * kTile + i) * kDim + warp.column; };
  store_rows(sums, warp.row, r.y, row_of_chunk);
#pragma unroll
  for (auto& row : sums) row[0] = row[1] = row[2] = row[3] = 0.0f;
  multiply<kTile / 16>(
      sums, [&](int k) { return T_fragment(k, gates.es()); },
      [&](int k, int n) { return right<kPitch>(K, 16 * k, warp.column + 16 * n); }, below, Always());
  store_rows(sums, warp.row, r.W, row_of_chunk);
  for (int at = threadIdx.x; at < kTile * kTile / 2; at += kChunkThreads<kDim>) {
    const float* const from = T + at / (kTile / 2) * kTPitch + at % (kTile / 2) * 2;
    pair_at(r.T + z * kTile * kTile + 2 * at) = pack_pair(from[0], from[1]);
  }
}

// A block takes kPassColumns columns of the state through all chunks of a sequence, its warps share out the rows. What
// the next chunks need of memory is asked for ahead.
constexpr int kPassColumns = 32, kPassThreads = 128, kPassStages = 3;
template <int kDim, bool kDelta>
constexpr int kPassStageBytes = (kDelta ? 2 : 1) * tile_bytes(kTile, kDim) +
                                tile_bytes(kTile, kPassColumns) + kGateFloats * 4;
template <int kDim, bool kDelta>
constexpr int kPassBytes = kPassStages* kPassStageBytes<kDim, kDelta> + tile_bytes(kDim, kPassColumns) +
                           (kDelta ? tile_bytes(kTile, kPassColumns) : 0);

template <int kDim, bool kDelta>
__global__ void __launch_bounds__(kPassThreads) pass_kernel(Recurrence r, float* final_state) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kPitch = pitch_of(kDim), kNarrow = pitch_of(kPassColumns), kTiles = kDim / 64, kN = kPassColumns / 8;
  struct Stage {
    Bf16 *K, *W, *U;
    Gates gates;
    __device__ Stage(unsigned char* at) {
      SharedMemory memory{at};
      K = memory.tile(kTile, kDim);
      W = kDelta ? memory.tile(kTile, kDim) : nullptr;
      U = memory.tile(kTile, kPassColumns);
      gates = {memory.floats(kGateFloats)};
    }
  };
  const auto stage_of = [](int n) { return Stage(shared + n % kPassStages * kPassStageBytes<kDim, kDelta>); };
  SharedMemory memory{shared + kPassStages * kPassStageBytes<kDim, kDelta>};
  Bf16* const S_tile = memory.tile(kDim, kPassColumns);
  Bf16* const written = kDelta ? memory.tile(kTile, kPassColumns) : nullptr;  // w f y

  const int column = blockIdx.x * kPassColumns, head = blockIdx.y, warp = threadIdx.x / kWarp;
  const SequenceChunks chunks(r.first, r.steps, r.placement.sequences, blockIdx.z);
  const auto ask = [&](int n) {
    if (n < chunks.count) {
      const Stage stage = stage_of(n);
      const ChunkRows rows(r, chunks.chunk(n), head);
      rows.copy_keys<kDim>(stage.K, r.k);
      if (kDelta) {
        copy_matrix<kTile, kDim>(stage.W, r.W + rows.z * kTile * kDim, kDim);
        copy_matrix<kTile, kPassColumns>(stage.U, r.y + rows.z * kTile * kDim + column, kDim);
      } else {
        rows.copy_keys<kPassColumns>(stage.U, r.v + column);
      }
      rows.copy_gates(stage.gates.data);
    }
    end_copies();
  };
  const int64_t sequence = r.order ? r.order[blockIdx.z] : blockIdx.z;
  const int64_t state_at = (sequence * r.heads + head) * kDim * kDim + column;
  const auto state_row = [&](int tile) { return 16 * (warp * kTiles + tile); };

#pragma unroll
  for (int n = 0; n + 1 < kPassStages; ++n) ask(n);
  float S[kTiles][kN][4];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    for_sums(S[tile], [&](int i, int c, float& x) {
      x = r.initial ? r.initial[state_at + (state_row(tile) + i) * kDim + c] : 0.0f;
    });
    store_tile(S[tile], S_tile + state_row(tile) * kNarrow, kNarrow);
  }
  for (int n = 0; n < chunks.count; ++n) {
    wait_for_copies<kPassStages - 2>();
    __syncthreads();
    ask(n + kPassStages - 1);
    const Stage stage = stage_of(n);
    const int64_t z = static_cast<int64_t>(chunks.chunk(n)) * r.heads + head;
    for (int at = threadIdx.x; at < kDim * kPassColumns / 8; at += kPassThreads) {
      const int row = at / (kPassColumns / 8), c = at % (kPassColumns / 8) * 8;
      put_pack<8>(r.before + (z * kDim + row) * kDim + column + c, pack_at<8>(S_tile + row * kNarrow + c));
    }
    if (kDelta) {
      float y[kN][4] = {};
      multiply<kDim / 16>(
          y, [&](int k) { return left<kPitch>(stage.W, 16 * warp, 16 * k); },
          [&](int k, int c) { return right<kNarrow>(S_tile, 16 * k, 16 * c); });
      for_pairs(y, [&](int i, int c, float& a, float& b) {
        i += 16 * warp;
        const uint32_t u = pair_at(static_cast<const Bf16*>(stage.U) + i * kNarrow + c);
        a = low_of(u) - a, b = high_of(u) - b;
        pair_at(r.y + (z * kTile + i) * kDim + column + c) = pack_pair(a, b);
        const float factor = stage.gates.w(i) * stage.gates.f(i);
        pair_at(written + i * kNarrow + c) = pack_pair(a * factor, b * factor);
      });
      __syncthreads();
    }
    const float last = stage.gates.last();
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      for_sums(S[tile], [&](int, int, float& x) { x *= last; });
      multiply<kTile / 16>(
          S[tile], [&](int k) { return left_transposed<kPitch>(stage.K, state_row(tile), 16 * k); },
          [&](int k, int c) {
            if (kDelta) return right<kNarrow>(written, 16 * k, 16 * c);
            return rows_times(right<kNarrow>(stage.U, 16 * k, 16 * c),
                              [&](int i) { return stage.gates.w(16 * k + i) * stage.gates.f(16 * k + i); });
          });
    }
    if (!kDelta) __syncthreads();  // the old state has been kept
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) store_tile(S[tile], S_tile + state_row(tile) * kNarrow, kNarrow);
  }
  wait_for_copies<0>();
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
    for_sums(S[tile], [&](int i, int c, float x) { final_state[state_at + (state_row(tile) + i) * kDim + c] = x; });
}

template <int kDim>
constexpr int kOutputBytes = 3 * tile_bytes(kTile, kDim) + tile_bytes(kDim, kDim) + kGateFloats * 4;

template <int kDim>
__global__ void __launch_bounds__(kChunkThreads<kDim>) output_kernel(Recurrence r, Bf16* o) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kPitch = pitch_of(kDim);
  SharedMemory memory{shared};
  Bf16* const Q = memory.tile(kTile, kDim);
  Bf16* const K = memory.tile(kTile, kDim);
  Bf16* const Y = memory.tile(kTile, kDim);
  Bf16* const S = memory.tile(kDim, kDim);
  const Gates gates{memory.floats(kGateFloats)};
  const ChunkRows rows = ChunkRows::of_block(r);
  const int64_t z = rows.z;
  rows.copy_keys<kDim>(K, r.k);
  if (r.delta)
    copy_matrix<kTile, kDim>(Y, r.y + z * kTile * kDim, kDim);
  else
    rows.copy_keys<kDim>(Y, r.v);
  copy_matrix<kDim, kDim>(S, r.before + z * kDim * kDim, kDim);
  rows.copy_gates(gates.data);
  const WarpPlace warp;
  const auto below = [&](int k) { return k <= warp.row_tile; };
  for (int member = 0; member < r.group; ++member) {
    rows.copy_queries<kDim>(Q, r.q, member);
    end_copies();
    wait_for_copies<0>();
    __syncthreads();
    float scores[8][4] = {}, sums[8][4] = {};
    multiply<kDim / 16>(
        scores, [&](int k) { return left<kPitch>(Q, warp.row, 16 * k); },
        [&](int k, int n) { return right_transposed<kPitch>(K, 16 * k, 16 * n); }, Always(), below);
    for_sums(scores, [&](int i, int j, float& x) {
      i += warp.row;
      x = j <= i ? x * gates.decay(i, j) * gates.w(j) : 0.0f;
    });
    multiply<kDim / 16>(
        sums, [&](int k) { return left<kPitch>(Q, warp.row, 16 * k); },
        [&](int k, int n) { return right<kPitch>(S, 16 * k, warp.column + 16 * n); });
    for_sums(sums, [&](int i, int, float& x) { x *= gates.e(warp.row + i); });
    multiply<kTile / 16>(
        sums, [&](int k) { return as_left(scores[2 * k], scores[2 * k + 1]); },
        [&](int k, int n) { return right<kPitch>(Y, 16 * k, warp.column + 16 * n); }, below, Always());
    store_rows(sums, warp.row, o + warp.column, [&](int i) { return rows.query_offset(i, member); });
    __syncthreads();
  }
}

template <int kDim, bool kDelta>
void forward(const Recurrence& in, const RecurrenceOutputs& out) {
  const auto Z = static_cast<unsigned>(in.chunks * in.heads), sequences = static_cast<unsigned>(in.placement.sequences);
  if (Z > 0) {
    gates_kernel<<<(Z + kThreads / kWarp - 1) / (kThreads / kWarp), kThreads, 0, current_stream()>>>(in);
    check_launch("gates");
    if (kDelta) launch<prepare_kernel<kDim>>("prepare", Z, kChunkThreads<kDim>, kPrepareBytes<kDim>, in);
  }
  launch<pass_kernel<kDim, kDelta>>("pass", dim3(kDim / kPassColumns, in.heads, sequences), kPassThreads,
                                    kPassBytes<kDim, kDelta>, in, out.final_state);
  if (Z > 0) launch<output_kernel<kDim>>("output", Z, kChunkThreads<kDim>, kOutputBytes<kDim>, in, out.o);
}

}  // namespace

void recurrence_tiles_forward(const Recurrence& in, const RecurrenceOutputs& out) {
  if (in.placement.sequences == 0) return;
  if (in.dim == 64)
    in.delta ? forward<64, true>(in, out) : forward<64, false>(in, out);
  else
    in.delta ? forward<128, true>(in, out) : forward<128, false>(in, out);
}

}  // namespace oryx::ops::cuda
