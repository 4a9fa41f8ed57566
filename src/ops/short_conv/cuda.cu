#include "ops/common/cuda_rows.cuh"
#include "ops/short_conv/cpu.h"

namespace oryx::ops::cuda {
namespace {

constexpr int kTile = 64;       // tokens that a thread takes of its channel
constexpr int kMostTaps = 8;    // widths above are handled with more passes over the taps
constexpr int kChannels = 128;  // of a block

// The sequence that holds packed token t: begins[b] <= t < begins[b + 1].
__device__ int64_t sequence_of(const int64_t* begins, int64_t sequences, int64_t t) {
  int64_t low = 0, high = sequences;  // begins[low] <= t
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (begins[middle] <= t ? low : high) = middle;
  }
  return low;
}

// Input of channel c at packed place s of sequence b, which may lie up to W - 1 before its first token.
template <typename T>
__device__ __forceinline__ Arithmetic<T> input(const ShortConvArgs<T>& args, int64_t b, int64_t begin, int64_t s,
                                               int64_t c) {
  if (s >= begin) return widen(args.x[s * args.channels + c]);
  if (!args.initial_state) return 0;
  return widen(args.initial_state[(b * args.channels + c) * (args.width - 1) + s - begin + args.width - 1]);
}

template <typename T>
__device__ __forceinline__ Arithmetic<T> convolved(const ShortConvArgs<T>& args, int64_t b, int64_t begin, int64_t t,
                                                   int64_t c) {
  Arithmetic<T> sum = 0;
  for (int64_t j = 0; j < args.width; ++j)
    sum += args.weight[c * args.width + j] * input(args, b, begin, t - (args.width - 1) + j, c);
  return sum;
}

// Gradient of the sum before the activation.
template <typename T>
__device__ __forceinline__ Arithmetic<T> grad_sum(const ShortConvArgs<T>& args, int64_t b, int64_t begin, int64_t t,
                                                  int64_t c) {
  using A = Arithmetic<T>;
  if (!args.grad_y) return 0;
  const A dy = widen(args.grad_y[t * args.channels + c]);
  if (!args.silu) return dy;
  const A a = convolved(args, b, begin, t, c);
  return dy * silu_slope(a, sigmoid(a));
}

template <typename T>
__global__ void forward_kernel(ShortConvArgs<T> args, int64_t tokens) {
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kChannels + threadIdx.x;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile, last = min(first + kTile, tokens);
  if (c >= args.channels) return;
  int64_t b = sequence_of(args.tokens, args.sequences, first);
  for (int64_t t = first; t < last; ++t) {
    while (t >= args.tokens[b + 1]) ++b;
    auto y = convolved(args, b, args.tokens[b], t, c);
    if (args.silu) y *= sigmoid(y);
    args.y[t * args.channels + c] = narrow<T>(y);
  }
}

template <typename T>
__global__ void final_state_kernel(ShortConvArgs<T> args) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, taps = args.width - 1;
  if (i >= args.sequences * args.channels * taps) return;
  const int64_t b = i / (args.channels * taps), c = i / taps % args.channels;
  args.final_state[i] = narrow<T>(input(args, b, args.tokens[b], args.tokens[b + 1] - taps + i % taps, c));
}

// Taps [tap, tap + kMostTaps) of a tile: the weight's gradient, and at tap 0 the inputs' whole gradient.
template <typename T>
__global__ void backward_kernel(ShortConvArgs<T> args, int64_t tokens, int64_t tap, Arithmetic<T>* partial) {
  using A = Arithmetic<T>;
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kChannels + threadIdx.x, W = args.width;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile, last = min(first + kTile, tokens);
  if (c >= args.channels) return;
  A sums[kMostTaps] = {};
  int64_t b = sequence_of(args.tokens, args.sequences, first);
  A ahead[kMostTaps];  // grad_sum of the tokens from t on, W of them where W <= kMostTaps
  int64_t known = first;
  for (int64_t t = first; t < last; ++t) {
    while (t >= args.tokens[b + 1]) ++b, known = t;
    const int64_t begin = args.tokens[b], end = args.tokens[b + 1];
    const bool kept = W <= kMostTaps;
    if (kept)
      for (; known < min(end, t + W); ++known) ahead[known % kMostTaps] = grad_sum(args, b, begin, known, c);
    const auto da = [&](int64_t at) { return kept ? ahead[at % kMostTaps] : grad_sum(args, b, begin, at, c); };
    if (args.grad_x && tap == 0) {
      A sum = 0;
      for (int64_t j = W - 1; j >= 0; --j)
        if (t + W - 1 - j < end) sum += args.weight[c * W + j] * da(t + W - 1 - j);
      if (args.grad_final && t >= end - (W - 1))
        sum += widen(args.grad_final[(b * args.channels + c) * (W - 1) + t - (end - (W - 1))]);
      args.grad_x[t * args.channels + c] = narrow<T>(sum);
    }
    if (partial) {
      const A here = da(t);
#pragma unroll
      for (int j = 0; j < kMostTaps; ++j)
        if (tap + j < W) sums[j] += here * input(args, b, begin, t - (W - 1) + tap + j, c);
    }
  }
  if (!partial) return;
#pragma unroll
  for (int j = 0; j < kMostTaps; ++j)
    if (tap + j < W) partial[(blockIdx.x * args.channels + c) * W + tap + j] = sums[j];
}

template <typename T>
__global__ void initial_grad_kernel(ShortConvArgs<T> args) {
  using A = Arithmetic<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, taps = args.width - 1;
  if (i >= args.sequences * args.channels * taps) return;
  const int64_t b = i / (args.channels * taps), c = i / taps % args.channels;
  const int64_t begin = args.tokens[b], end = args.tokens[b + 1], s = begin - taps + i % taps;
  A sum = 0;
  for (int64_t t = begin; t < min(end, s + args.width); ++t)
    sum += args.weight[c * args.width + s - t + taps] * grad_sum(args, b, begin, t, c);
  if (args.grad_final && s >= end - taps)
    sum += widen(args.grad_final[(b * args.channels + c) * taps + s - (end - taps)]);
  args.grad_initial[i] = narrow<T>(sum);
}

unsigned blocks(int64_t n, int64_t of_block) {
  return static_cast<unsigned>((n + of_block - 1) / of_block);
}

}  // namespace

template <typename T>
void short_conv_forward(const ShortConvArgs<T>& args) {
  const int64_t states = args.sequences * args.channels * (args.width - 1);
  if (args.num_tokens > 0)
    forward_kernel<<<dim3(blocks(args.num_tokens, kTile), blocks(args.channels, kChannels)), kChannels, 0,
                     current_stream()>>>(args, args.num_tokens);
  if (states > 0) final_state_kernel<<<blocks(states, kThreads), kThreads, 0, current_stream()>>>(args);
  check_launch("short_conv");
}

template <typename T>
void short_conv_backward(const ShortConvArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t states = args.sequences * args.channels * (args.width - 1), tiles = blocks(args.num_tokens, kTile);
  const int64_t weights = args.channels * args.width;
  const DeviceMemory partial(args.grad_weight ? tiles * weights * sizeof(A) : 0);
  for (int64_t tap = 0; tap < args.width && tiles > 0; tap += kMostTaps)
    backward_kernel<<<dim3(tiles, blocks(args.channels, kChannels)), kChannels, 0, current_stream()>>>(
        args, args.num_tokens, tap, partial.as<A>());
  check_launch("short_conv");
  if (args.grad_weight) add_partial(tiles, weights, A(1), partial.as<A>(), args.grad_weight);
  if (args.grad_initial && states > 0)
    initial_grad_kernel<<<blocks(states, kThreads), kThreads, 0, current_stream()>>>(args);
  check_launch("short_conv");
}

#define ORYX_INSTANTIATE(T)                                     \
  template void short_conv_forward<T>(const ShortConvArgs<T>&); \
  template void short_conv_backward<T>(const ShortConvArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)

}  // namespace oryx::ops::cuda
