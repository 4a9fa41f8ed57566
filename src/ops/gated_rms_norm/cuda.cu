#include "ops/common/cuda_rows.cuh"
#include "ops/gated_rms_norm/cpu.h"

namespace oryx::ops::cuda {
namespace {

// Formulas: cpu.cpp.
template <int kPack, int kCount, typename T>
__global__ void forward_kernel(GatedRmsNormArgs<T> args, int lanes) {
  using A = Arithmetic<T>;
  const int64_t begin = lane_of_row(lanes) * kPack, step = lanes * kPack;
  for_rows(args.rows, lanes, [&](int64_t row, bool valid) {
    const int64_t first = row * args.width, end = valid ? args.width : 0;
    RowPacks<kPack, kCount, T> x{args.x + first}, gate{args.gate + first};
    A squares = 0;
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto& v = x.read(place, i);
      if (kCount > 0) gate.read(place, i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) squares += widen(v.v[j]) * widen(v.v[j]);
    });
    const A r = inverse_rms(squares, lanes, args.width, args.eps);
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto &v = x.again(place, i), &gates = gate.again(place, i);
      A y[kPack];
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const A g = widen(gates.v[j]);
        y[j] = widen(v.v[j]) * r * args.weight[i + j] * (g * sigmoid(g));
      }
      put_pack<kPack>(args.y + first + i, narrow_pack<T>(y));
    });
  });
}

// Each block's part of the weight's gradient goes to `partial` [blocks, width] where rows are kept, else each row's r
// to `inverse`; null: not wanted.
template <int kPack, int kCount, typename T>
__global__ void backward_kernel(GatedRmsNormArgs<T> args, int lanes, Arithmetic<T>* partial, Arithmetic<T>* inverse) {
  using A = Arithmetic<T>;
  const int64_t begin = lane_of_row(lanes) * kPack, step = lanes * kPack;
  A sums[kCount > 0 ? kCount : 1][kPack] = {};
  for_rows(args.rows, lanes, [&](int64_t row, bool valid) {
    const int64_t first = row * args.width, end = valid ? args.width : 0;
    RowPacks<kPack, kCount, T> x{args.x + first}, gate{args.gate + first}, dy{args.grad_y + first};
    A squares = 0, products = 0;
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto &vs = x.read(place, i), &gates = gate.read(place, i), &ds = dy.read(place, i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const A v = widen(vs.v[j]), g = widen(gates.v[j]);
        squares += v * v;
        products += v * widen(ds.v[j]) * args.weight[i + j] * (g * sigmoid(g));
      }
    });
    const A r = inverse_rms(squares, lanes, args.width, args.eps);
    const A along = group_sum(products, lanes) / static_cast<A>(args.width) * r * r * r;
    if (inverse && begin == 0 && valid) inverse[row] = r;
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto &vs = x.again(place, i), &gates = gate.again(place, i), &ds = dy.again(place, i);
      A grad_x[kPack], grad_gate[kPack];
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const A v = widen(vs.v[j]), g = widen(gates.v[j]), d = widen(ds.v[j]), s = sigmoid(g);
        const A h = d * args.weight[i + j];
        grad_x[j] = h * (g * s) * r - v * along;
        grad_gate[j] = h * v * r * silu_slope(g, s);
        if constexpr (kCount > 0) sums[place][j] += v * r * d * (g * s);
      }
      if (args.grad_x) put_pack<kPack>(args.grad_x + first + i, narrow_pack<T>(grad_x));
      if (args.grad_gate) put_pack<kPack>(args.grad_gate + first + i, narrow_pack<T>(grad_gate));
    });
  });
  if constexpr (kCount > 0) {
    if (partial) put_column_sums<kPack>(sums, args.width, lanes, partial);
  }
}

template <int kPack, int kCount, typename T>
void launch_backward(const GatedRmsNormArgs<T>& args, const RowGrid& grid) {
  using A = Arithmetic<T>;
  const WeightSums<kCount, A> sums(grid, args.width, args.grad_weight != nullptr);
  if (args.rows > 0)
    backward_kernel<kPack, kCount><<<sums.blocks, kThreads, sums.shared_bytes, current_stream()>>>(
        args, grid.lanes, sums.partial(), sums.inverse());
  check_launch("gated_rms_norm");
  if (!args.grad_weight) return;
  sums.add_up(A(1), args.grad_weight,
              [x = args.x, gate = args.gate, dy = args.grad_y, r = sums.inverse(), width = args.width] __device__(
                  int64_t row, int64_t i) {
                const int64_t at = row * width + i;
                const A g = widen(gate[at]);
                return widen(x[at]) * r[row] * widen(dy[at]) * (g * sigmoid(g));
              });
}

}  // namespace

template <typename T>
void gated_rms_norm_forward(const GatedRmsNormArgs<T>& args) {
  if (args.rows == 0) return;
  with_packs<kFull<T>>(
      args.rows, args.width,
      [&](auto pack, auto count, const RowGrid& grid) {
        const auto kernel = forward_kernel<decltype(pack)::value, decltype(count)::value, T>;
        kernel<<<grid.blocks(), kThreads, 0, current_stream()>>>(args, grid.lanes);
      },
      args.x, args.gate, args.y);
  check_launch("gated_rms_norm");
}

template <typename T>
void gated_rms_norm_backward(const GatedRmsNormArgs<T>& args) {
  with_packs<kFull<T>>(
      args.rows, args.width,
      [&](auto pack, auto count, const RowGrid& grid) {
        launch_backward<decltype(pack)::value, decltype(count)::value>(args, grid);
      },
      args.x, args.gate, args.grad_y, args.grad_x, args.grad_gate);
}

#define ORYX_INSTANTIATE(T)                                            \
  template void gated_rms_norm_forward<T>(const GatedRmsNormArgs<T>&); \
  template void gated_rms_norm_backward<T>(const GatedRmsNormArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)

}  // namespace oryx::ops::cuda
