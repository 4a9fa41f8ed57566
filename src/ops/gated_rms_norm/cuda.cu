#include "ops/common/cuda_rows.cuh"
#include "ops/gated_rms_norm/cpu.h"

namespace oryx::ops::cuda {

// Formulas: cpu.cpp. The backward pass leaves each row's r for the weight's gradient.
template <int kPack, typename T, bool kBackward>
__global__ void gated_rms_norm_kernel(GatedRmsNormArgs<T> args, int lanes, Arithmetic<T>* inverse) {
  using A = Arithmetic<T>;
  const int lane = lane_of_row(lanes);
  for_rows(args.rows, lanes, [&](int64_t row, bool valid) {
    const int64_t first = row * args.width;
    const int64_t begin = lane * kPack, end = valid ? args.width : 0;
    A squares = 0, products = 0;
    for (int64_t i = begin; i < end; i += lanes * kPack) {
      const auto x = pack_at<kPack>(args.x + first + i);
      Pack<T, kPack> gate, dy;
      if constexpr (kBackward)
        gate = pack_at<kPack>(args.gate + first + i), dy = pack_at<kPack>(args.grad_y + first + i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const A v = widen(x.v[j]);
        squares += v * v;
        if constexpr (kBackward) {
          const A g = widen(gate.v[j]);
          products += v * widen(dy.v[j]) * args.weight[i + j] * (g * sigmoid(g));
        }
      }
    }
    const A r = rsqrt(group_sum(squares, lanes) / static_cast<A>(args.width) + static_cast<A>(args.eps));
    A along = 0;
    if constexpr (kBackward) {
      along = group_sum(products, lanes) / static_cast<A>(args.width) * r * r * r;
      if (inverse && lane == 0 && valid) inverse[row] = r;
    }
    for (int64_t i = begin; i < end; i += lanes * kPack) {
      const auto x = pack_at<kPack>(args.x + first + i), gate = pack_at<kPack>(args.gate + first + i);
      Pack<T, kPack> dy, out, grad_gate;
      if constexpr (kBackward) dy = pack_at<kPack>(args.grad_y + first + i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const A v = widen(x.v[j]), g = widen(gate.v[j]), s = sigmoid(g), weight = args.weight[i + j];
        if constexpr (kBackward) {
          const A h = widen(dy.v[j]) * weight;
          out.v[j] = narrow<T>(h * (g * s) * r - v * along);
          grad_gate.v[j] = narrow<T>(h * v * r * silu_slope(g, s));
        } else {
          out.v[j] = narrow<T>(v * r * weight * (g * s));
        }
      }
      if constexpr (kBackward) {
        if (args.grad_x) put_pack<kPack>(args.grad_x + first + i, out);
        if (args.grad_gate) put_pack<kPack>(args.grad_gate + first + i, grad_gate);
      } else {
        put_pack<kPack>(args.y + first + i, out);
      }
    }
  });
}

template <bool kBackward, typename T>
static void launch(const GatedRmsNormArgs<T>& args, Arithmetic<T>* inverse) {
  const bool packs = in_packs<4>(args.width, args.x, args.gate, args.y, args.grad_y, args.grad_x, args.grad_gate);
  const RowGrid grid = row_grid(args.rows, args.width, packs ? 4 : 1);
  const auto kernel = packs ? gated_rms_norm_kernel<4, T, kBackward> : gated_rms_norm_kernel<1, T, kBackward>;
  kernel<<<grid.blocks(), kThreads, 0, current_stream()>>>(args, grid.lanes, inverse);
  check_launch("gated_rms_norm");
}

template <typename T>
void gated_rms_norm_forward(const GatedRmsNormArgs<T>& args) {
  if (args.rows > 0) launch<false>(args, static_cast<Arithmetic<T>*>(nullptr));
}

template <typename T>
void gated_rms_norm_backward(const GatedRmsNormArgs<T>& args) {
  using A = Arithmetic<T>;
  const DeviceMemory inverse(args.rows * sizeof(A));
  if (args.rows > 0) launch<true>(args, inverse.as<A>());
  if (!args.grad_weight) return;
  column_sums(args.rows, args.width, A(1), args.grad_weight,
              [x = args.x, gate = args.gate, dy = args.grad_y, r = inverse.as<A>(), width = args.width] __device__(
                  int64_t row, int64_t i) {
                const int64_t at = row * width + i;
                const A g = widen(gate[at]);
                return widen(x[at]) * r[row] * widen(dy[at]) * (g * sigmoid(g));
              });
}

#define ORYX_INSTANTIATE(T)                                            \
  template void gated_rms_norm_forward<T>(const GatedRmsNormArgs<T>&); \
  template void gated_rms_norm_backward<T>(const GatedRmsNormArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)

}  // namespace oryx::ops::cuda
