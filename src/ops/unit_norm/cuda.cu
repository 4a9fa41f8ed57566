#include "ops/common/cuda_rows.cuh"
#include "ops/unit_norm/cpu.h"

namespace oryx::ops::cuda {

// With a = x or silu(x) and r = 1 / sqrt(sum(a^2) + eps): y = scale r a, and
//     grad_x = scale (r grad_y - a r^3 (a . grad_y)) a'(x).
template <int kPack, int kCount, typename T, bool kBackward>
__global__ void unit_norm_kernel(UnitNormArgs<T> args, int lanes) {
  using A = Arithmetic<T>;
  const int64_t begin = lane_of_row(lanes) * kPack, step = lanes * kPack;
  const A scale = static_cast<A>(args.scale);
  for_rows(args.rows, lanes, [&](int64_t row, bool valid) {
    const int64_t first = row * args.width, end = valid ? args.width : 0;
    RowPacks<kPack, kCount, T> x{args.x + first}, dy{args.grad_y + first};
    A squares = 0, along = 0;
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto& v = x.read(place, i);
      if constexpr (kBackward) dy.read(place, i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        A a = widen(v.v[j]);
        if (args.silu) a *= sigmoid(a);
        squares += a * a;
        if constexpr (kBackward) along += a * widen(dy.kept[place].v[j]);
      }
    });
    const A r = rsqrt(group_sum(squares, lanes) + static_cast<A>(args.eps));
    if constexpr (kBackward) along = group_sum(along, lanes) * r * r;
    for_lane_packs<kCount>(begin, end, step, [&](int place, int64_t i) {
      const auto& packed = x.again(place, i);
      if constexpr (kBackward) dy.again(place, i);
      A out[kPack];
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const A v = widen(packed.v[j]), s = args.silu ? sigmoid(v) : A(1), a = v * s;
        if constexpr (kBackward)
          out[j] = scale * r * (widen(dy.kept[place].v[j]) - a * along) * (args.silu ? silu_slope(v, s) : A(1));
        else
          out[j] = a * (r * scale);
      }
      put_pack<kPack>((kBackward ? args.grad_x : args.y) + first + i, narrow_pack<T>(out));
    });
  });
}

template <bool kBackward, typename T>
static void launch(const UnitNormArgs<T>& args) {
  if (args.rows == 0) return;
  with_packs<kFull<T>>(
      args.rows, args.width,
      [&](auto pack, auto count, const RowGrid& grid) {
        const auto kernel = unit_norm_kernel<decltype(pack)::value, decltype(count)::value, T, kBackward>;
        kernel<<<grid.blocks(), kThreads, 0, current_stream()>>>(args, grid.lanes);
      },
      args.x, args.y, args.grad_y, args.grad_x);
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
