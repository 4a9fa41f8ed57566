#include "ops/common/cuda_rows.cuh"
#include "ops/unit_norm/cpu.h"

namespace oryx::ops::cuda {

// With a = x or silu(x) and r = 1 / sqrt(sum(a^2) + eps): y = scale r a, and
//     grad_x = scale (r grad_y - a r^3 (a . grad_y)) a'(x).
template <int kPack, typename T, bool kBackward>
__global__ void unit_norm_kernel(UnitNormArgs<T> args, int lanes) {
  using A = Arithmetic<T>;
  const int lane = lane_of_row(lanes);
  const A scale = static_cast<A>(args.scale);
  for_rows(args.rows, lanes, [&](int64_t row, bool valid) {
    const int64_t begin = row * args.width + lane * kPack, end = valid ? (row + 1) * args.width : 0;
    A squares = 0, along = 0;
    for (int64_t i = begin; i < end; i += lanes * kPack) {
      const auto x = pack_at<kPack>(args.x + i);
      Pack<T, kPack> dy;
      if constexpr (kBackward) dy = pack_at<kPack>(args.grad_y + i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        A a = widen(x.v[j]);
        if (args.silu) a *= sigmoid(a);
        squares += a * a;
        if constexpr (kBackward) along += a * widen(dy.v[j]);
      }
    }
    const A r = rsqrt(group_sum(squares, lanes) + static_cast<A>(args.eps));
    if constexpr (kBackward) along = group_sum(along, lanes) * r * r;
    for (int64_t i = begin; i < end; i += lanes * kPack) {
      const auto x = pack_at<kPack>(args.x + i);
      Pack<T, kPack> dy, out;
      if constexpr (kBackward) dy = pack_at<kPack>(args.grad_y + i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const A v = widen(x.v[j]), s = args.silu ? sigmoid(v) : A(1), a = v * s;
        if constexpr (kBackward)
          out.v[j] = narrow<T>(scale * r * (widen(dy.v[j]) - a * along) * (args.silu ? silu_slope(v, s) : A(1)));
        else
          out.v[j] = narrow<T>(a * (r * scale));
      }
      put_pack<kPack>((kBackward ? args.grad_x : args.y) + i, out);
    }
  });
}

template <bool kBackward, typename T>
static void launch(const UnitNormArgs<T>& args) {
  if (args.rows == 0) return;
  const bool packs = in_packs<4>(args.width, args.x, args.y, args.grad_y, args.grad_x);
  const RowGrid grid = row_grid(args.rows, args.width, packs ? 4 : 1);
  const auto kernel = packs ? unit_norm_kernel<4, T, kBackward> : unit_norm_kernel<1, T, kBackward>;
  kernel<<<grid.blocks(), kThreads, 0, current_stream()>>>(args, grid.lanes);
  check_launch("unit_norm");
}

template <typename T>
void unit_norm_forward(const UnitNormArgs<T>& args) {
  launch<false>(args);
}
template <typename T>
void unit_norm_backward(const UnitNormArgs<T>& args) {
  launch<true>(args);
}

#define ORYX_INSTANTIATE(T)                                   \
  template void unit_norm_forward<T>(const UnitNormArgs<T>&); \
  template void unit_norm_backward<T>(const UnitNormArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)

}  // namespace oryx::ops::cuda
