#include "ops/common/cuda_rows.cuh"
#include "ops/rms_norm/cpu.h"

namespace oryx::ops::cuda {

// Formulas: cpu.cpp. The backward pass leaves each row's r for the weight's gradient.
template <int kPack, typename In, typename Out, bool kBackward>
__global__ void rms_norm_kernel(RmsNormArgs<In, Out> args, int lanes, Arithmetic<In>* inverse) {
  using A = Arithmetic<In>;
  const int lane = lane_of_row(lanes);
  const A scale = static_cast<A>(args.scale);
  for_rows(args.rows, lanes, [&](int64_t row, bool valid) {
    const int64_t first = row * args.width;
    const int64_t begin = lane * kPack, end = valid ? args.width : 0;
    A squares = 0, products = 0;
    for (int64_t i = begin; i < end; i += lanes * kPack) {
      const auto x = pack_at<kPack>(args.x + first + i);
      Pack<Out, kPack> dy;
      if constexpr (kBackward) dy = pack_at<kPack>(args.grad_y + first + i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const A v = widen(x.v[j]);
        squares += v * v;
        if constexpr (kBackward) products += v * widen(dy.v[j]) * (args.weight ? args.weight[i + j] : A(1));
      }
    }
    const A r = rsqrt(group_sum(squares, lanes) / static_cast<A>(args.width) + static_cast<A>(args.eps));
    A along = 0;
    if constexpr (kBackward) {
      along = group_sum(products, lanes) * scale / static_cast<A>(args.width) * r * r * r;
      if (inverse && lane == 0 && valid) inverse[row] = r;
      if (!args.grad_x) return;
    }
    for (int64_t i = begin; i < end; i += lanes * kPack) {
      const auto x = pack_at<kPack>(args.x + first + i);
      if constexpr (kBackward) {
        const auto dy = pack_at<kPack>(args.grad_y + first + i);
        Pack<In, kPack> out;
#pragma unroll
        for (int j = 0; j < kPack; ++j) {
          const A weight = args.weight ? args.weight[i + j] * scale : scale;
          out.v[j] = narrow<In>(widen(dy.v[j]) * weight * r - widen(x.v[j]) * along);
        }
        put_pack<kPack>(args.grad_x + first + i, out);
      } else {
        Pack<Out, kPack> out;
#pragma unroll
        for (int j = 0; j < kPack; ++j)
          out.v[j] = narrow<Out>(widen(x.v[j]) * r * (args.weight ? args.weight[i + j] * scale : scale));
        put_pack<kPack>(args.y + first + i, out);
      }
    }
  });
}

template <bool kBackward, typename In, typename Out>
static void launch(const RmsNormArgs<In, Out>& args, Arithmetic<In>* inverse) {
  const bool packs = in_packs<4>(args.width, args.x, args.y, args.grad_y, args.grad_x);
  const RowGrid grid = row_grid(args.rows, args.width, packs ? 4 : 1);
  const auto kernel = packs ? rms_norm_kernel<4, In, Out, kBackward> : rms_norm_kernel<1, In, Out, kBackward>;
  kernel<<<grid.blocks(), kThreads, 0, current_stream()>>>(args, grid.lanes, inverse);
  check_launch("rms_norm");
}

template <typename In, typename Out>
void rms_norm_forward(const RmsNormArgs<In, Out>& args) {
  if (args.rows > 0) launch<false, In, Out>(args, nullptr);
}

template <typename In, typename Out>
void rms_norm_backward(const RmsNormArgs<In, Out>& args) {
  using A = Arithmetic<In>;
  const DeviceMemory inverse(args.rows * sizeof(A));
  if (args.rows > 0) launch<true, In, Out>(args, inverse.as<A>());
  if (!args.grad_weight) return;
  column_sums(args.rows, args.width, static_cast<A>(args.scale), args.grad_weight,
              [x = args.x, dy = args.grad_y, r = inverse.as<A>(), width = args.width] __device__(
                  int64_t row, int64_t i) { return widen(x[row * width + i]) * widen(dy[row * width + i]) * r[row]; });
}

#define ORYX_INSTANTIATE(In, Out)                                       \
  template void rms_norm_forward<In, Out>(const RmsNormArgs<In, Out>&); \
  template void rms_norm_backward<In, Out>(const RmsNormArgs<In, Out>&);
ORYX_INSTANTIATE(float, float)
ORYX_INSTANTIATE(float, Bf16)
ORYX_INSTANTIATE(Bf16, float)
ORYX_INSTANTIATE(Bf16, Bf16)
ORYX_INSTANTIATE(double, double)

}  // namespace oryx::ops::cuda
