#include "ops/common/cuda_rows.cuh"
#include "ops/rope/cpu.h"

namespace oryx::ops::cuda {

// A thread takes one angle of one token for all heads: its sine and cosine cost more than the rotations.
template <typename T>
__global__ void rope_kernel(RopeArgs<T> args) {
  using A = Arithmetic<T>;
  const int64_t half = args.dim / 2, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t token = i / half, j = i % half;
  if (token >= args.tokens) return;
  const double exponent = -2.0 * static_cast<double>(j) / static_cast<double>(args.dim);
  double sine, cosine;
  sincos(static_cast<double>(args.positions[token]) * pow(args.base, exponent), &sine, &cosine);
  const A c = static_cast<A>(cosine), s = static_cast<A>(sine * args.sign);
  for (int64_t head = 0; head < args.heads; ++head) {
    const int64_t at = (token * args.heads + head) * args.dim + j;
    const A first = widen(args.x[at]), second = widen(args.x[at + half]);
    args.y[at] = narrow<T>(first * c - second * s);
    args.y[at + half] = narrow<T>(second * c + first * s);
  }
}

template <typename T>
void rope_rotate(const RopeArgs<T>& args) {
  const int64_t threads = args.tokens * (args.dim / 2);
  if (threads == 0 || args.heads == 0) return;
  rope_kernel<T><<<static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0, current_stream()>>>(args);
  check_launch("rope");
}

template void rope_rotate<float>(const RopeArgs<float>&);
template void rope_rotate<double>(const RopeArgs<double>&);
template void rope_rotate<Bf16>(const RopeArgs<Bf16>&);

}  // namespace oryx::ops::cuda
