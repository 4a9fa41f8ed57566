#include "ops/common/cuda_rows.cuh"
#include "ops/rms_norm/cpu.h"

namespace oryx::ops::cuda {
namespace {

template <typename In>
constexpr int kPackOf = sizeof(In) < sizeof(double) ? 4 : 1;

// A row's scale, its head's weight in it.
template <bool kHeads, typename In, typename Out, typename A = Arithmetic<In>>
__device__ __forceinline__ A scale_of(const RmsNormArgs<In, Out>& args, const HeadWeights<In>& heads, int64_t row) {
  if constexpr (kHeads) return static_cast<A>(args.scale) * heads.weight[row % heads.count];
  return static_cast<A>(args.scale);
}

// Formulas: cpu.cpp.
template <int kPack, int kCount, bool kHeads, typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(RmsNormArgs<In, Out> args, HeadWeights<In> heads, int lanes) {
  using A = Arithmetic<In>;
  const int64_t begin = lane_of_row(lanes) * kPack, step = lanes * kPack;
  for_rows(args.rows, lanes, [&](int64_t row, bool valid) {
    const int64_t first = row * args.width, end = valid ? args.width : 0;
    // What was written to `sum` is read again by the lane that wrote it.
    RowPacks<kPack, kCount, In> x{(args.add ? args.sum : args.x) + first};
    A squares = 0;
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      if (args.add) {
        const auto summand = pack_at<kPack>(args.x + first + i);
        const auto add = pack_at<kPack>(args.add + first + i);
        A sum[kPack];
#pragma unroll
        for (int j = 0; j < kPack; ++j) sum[j] = widen(summand.v[j]) + widen(add.v[j]);
        x.kept[place] = narrow_pack<In>(sum);
        put_pack<kPack>(args.sum + first + i, x.kept[place]);
      } else {
        x.read(place, i);
      }
#pragma unroll
      for (int j = 0; j < kPack; ++j) squares += widen(x.kept[place].v[j]) * widen(x.kept[place].v[j]);
    });
    const A r = inverse_rms(squares, lanes, args.width, args.eps), scale = scale_of<kHeads>(args, heads, row);
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto& v = x.again(place, i);
      A y[kPack];
#pragma unroll
      for (int j = 0; j < kPack; ++j) y[j] = widen(v.v[j]) * r * (args.weight ? args.weight[i + j] * scale : scale);
      put_pack<kPack>(args.y + first + i, narrow_pack<Out>(y));
    });
  });
}

// Each block's part of the weight's gradient goes to `partial` [blocks, width] where rows are kept, else each row's r
// to `inverse`; with heads each row's part of its head's goes there. Null: not wanted.
template <int kPack, int kCount, bool kHeads, typename In, typename Out>
__global__ void __launch_bounds__(kThreads) backward_kernel(RmsNormArgs<In, Out> args, HeadWeights<In> heads, int lanes,
                                                            Arithmetic<In>* partial, Arithmetic<In>* inverse) {
  using A = Arithmetic<In>;
  const int64_t begin = lane_of_row(lanes) * kPack, step = lanes * kPack;
  A sums[kCount > 0 ? kCount : 1][kPack] = {};
  for_rows(args.rows, lanes, [&](int64_t row, bool valid) {
    const int64_t first = row * args.width, end = valid ? args.width : 0;
    RowPacks<kPack, kCount, In> x{args.x + first};
    RowPacks<kPack, kCount, Out> dy{args.grad_y + first};
    A squares = 0, products = 0;
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto& v = x.read(place, i);
      const auto& d = dy.read(place, i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        squares += widen(v.v[j]) * widen(v.v[j]);
        products += widen(v.v[j]) * widen(d.v[j]) * (args.weight ? args.weight[i + j] : A(1));
      }
    });
    const A r = inverse_rms(squares, lanes, args.width, args.eps);
    const A product = group_sum(products, lanes), scale = scale_of<kHeads>(args, heads, row);
    const A along = product * scale / static_cast<A>(args.width) * r * r * r;
    if (inverse && begin == 0 && valid) inverse[row] = kHeads ? product * r : r;
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto& v = x.again(place, i);
      const auto& d = dy.again(place, i);
      if (kCount > 0 && partial) {
#pragma unroll
        for (int j = 0; j < kPack; ++j) sums[place][j] += widen(d.v[j]) * widen(v.v[j]) * r;
      }
      if (!args.grad_x) return;
      A grad[kPack];
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        grad[j] = widen(d.v[j]) * (args.weight ? args.weight[i + j] * scale : scale) * r - widen(v.v[j]) * along;
      if (args.grad_sum) {
        const auto more = pack_at<kPack>(args.grad_sum + first + i);
#pragma unroll
        for (int j = 0; j < kPack; ++j) grad[j] += widen(more.v[j]);
      }
      put_pack<kPack>(args.grad_x + first + i, narrow_pack<In>(grad));
      if (args.grad_add) put_pack<kPack>(args.grad_add + first + i, narrow_pack<Out>(grad));
    });
  });
  if constexpr (kCount > 0) {
    if (partial) put_column_sums<kPack>(sums, args.width, lanes, partial);
  }
}

template <int kPack, int kCount, typename In, typename Out>
void launch_backward(const RmsNormArgs<In, Out>& args, const HeadWeights<In>& heads, const RowGrid& grid) {
  using A = Arithmetic<In>;
  if (heads.weight) {
    const DeviceMemory of_rows(heads.grad ? args.rows * sizeof(A) : 0);
    if (args.rows > 0)
      backward_kernel<kPack, kCount, true>
          <<<grid.blocks(), kThreads, 0, current_stream()>>>(args, heads, grid.lanes, nullptr, of_rows.as<A>());
    check_launch("rms_norm");
    if (heads.grad)
      column_sums(args.rows / heads.count, heads.count, static_cast<A>(args.scale), heads.grad,
                  [products = of_rows.as<A>(), count = heads.count] __device__(int64_t row, int64_t head) {
                    return products[row * count + head];
                  });
    return;
  }
  const WeightSums<kCount, A> sums(grid, args.width, args.grad_weight != nullptr);
  if (args.rows > 0)
    backward_kernel<kPack, kCount, false><<<sums.blocks, kThreads, sums.shared_bytes, current_stream()>>>(
        args, heads, grid.lanes, sums.partial(), sums.inverse());
  check_launch("rms_norm");
  if (!args.grad_weight) return;
  sums.add_up(static_cast<A>(args.scale), args.grad_weight,
              [x = args.x, dy = args.grad_y, r = sums.inverse(), width = args.width] __device__(
                  int64_t row, int64_t i) { return widen(x[row * width + i]) * widen(dy[row * width + i]) * r[row]; });
}

}  // namespace

template <typename In, typename Out>
void rms_norm_forward(const RmsNormArgs<In, Out>& args, const HeadWeights<In>& heads) {
  if (args.rows == 0) return;
  with_packs<kPackOf<In>>(
      args.rows, args.width,
      [&](auto pack, auto count, const RowGrid& grid) {
        constexpr int kPack = decltype(pack)::value, kCount = decltype(count)::value;
        const auto kernel =
            heads.weight ? forward_kernel<kPack, kCount, true, In, Out> : forward_kernel<kPack, kCount, false, In, Out>;
        kernel<<<grid.blocks(), kThreads, 0, current_stream()>>>(args, heads, grid.lanes);
      },
      args.x, args.y, args.add, args.sum);
  check_launch("rms_norm");
}

template <typename In, typename Out>
void rms_norm_backward(const RmsNormArgs<In, Out>& args, const HeadWeights<In>& heads) {
  with_packs<kPackOf<In>>(
      args.rows, args.width,
      [&](auto pack, auto count, const RowGrid& grid) {
        launch_backward<decltype(pack)::value, decltype(count)::value>(args, heads, grid);
      },
      args.x, args.grad_y, args.grad_x, args.grad_sum, args.grad_add);
}

#define ORYX_INSTANTIATE(In, Out)                                                               \
  template void rms_norm_forward<In, Out>(const RmsNormArgs<In, Out>&, const HeadWeights<In>&); \
  template void rms_norm_backward<In, Out>(const RmsNormArgs<In, Out>&, const HeadWeights<In>&);
ORYX_INSTANTIATE(float, float)
ORYX_INSTANTIATE(float, Bf16)
ORYX_INSTANTIATE(Bf16, float)
ORYX_INSTANTIATE(Bf16, Bf16)
ORYX_INSTANTIATE(double, double)

}  // namespace oryx::ops::cuda
