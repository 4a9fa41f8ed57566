#include "ops/common/cuda_rows.cuh"
#include "ops/swiglu/cpu.h"

namespace oryx::ops::cuda {

template <int kPack, typename T, bool kBackward>
__global__ void swiglu_kernel(SwigluArgs<T> args) {
  using A = Arithmetic<T>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * kPack;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kPack; i < args.size; i += stride) {
    const auto gates = pack_at<kPack>(args.gate + i), ups = pack_at<kPack>(args.up + i);
    A y[kPack], grad_gate[kPack], grad_up[kPack];
    Pack<T, kPack> grad_y;
    if constexpr (kBackward) grad_y = pack_at<kPack>(args.grad_y + i);
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      const A gate = widen(gates.v[j]), up = widen(ups.v[j]), s = sigmoid(gate);
      if constexpr (kBackward) {
        const A dy = widen(grad_y.v[j]);
        grad_gate[j] = dy * up * silu_slope(gate, s), grad_up[j] = dy * gate * s;
      } else {
        y[j] = gate * s * up;
      }
    }
    if constexpr (kBackward) {
      if (args.grad_gate) put_pack<kPack>(args.grad_gate + i, narrow_pack<T>(grad_gate));
      if (args.grad_up) put_pack<kPack>(args.grad_up + i, narrow_pack<T>(grad_up));
    } else {
      put_pack<kPack>(args.y + i, narrow_pack<T>(y));
    }
  }
}

template <bool kBackward, typename T>
static void launch(const SwigluArgs<T>& args) {
  if (args.size == 0) return;
  constexpr int kPack = kFull<T>;
  const bool packs = in_packs<kPack>(args.size, args.gate, args.up, args.y, args.grad_y, args.grad_gate, args.grad_up);
  const int64_t of_block = kThreads * (packs ? kPack : 1);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((args.size + of_block - 1) / of_block, 1 << 16));
  const auto kernel = packs ? swiglu_kernel<kPack, T, kBackward> : swiglu_kernel<1, T, kBackward>;
  kernel<<<blocks, kThreads, 0, current_stream()>>>(args);
  check_launch("swiglu");
}

template <typename T>
void swiglu_forward(const SwigluArgs<T>& args) {
  launch<false>(args);
}
template <typename T>
void swiglu_backward(const SwigluArgs<T>& args) {
  launch<true>(args);
}

#define ORYX_INSTANTIATE(T)                              \
  template void swiglu_forward<T>(const SwigluArgs<T>&); \
  template void swiglu_backward<T>(const SwigluArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)

}  // namespace oryx::ops::cuda
