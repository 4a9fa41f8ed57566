#include "ops/common/cuda_rows.cuh"
#include "ops/short_conv/cpu.h"

namespace oryx::ops::cuda {
namespace {

constexpr int kTile = 64;       // tokens that a thread takes of its channel
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

// A tile's tokens, cut where sequences end: work(b, begin, end of the sequence, first token, token after the last).
template <typename T, typename Work>
__device__ __forceinline__ void for_segments(const ShortConvArgs<T>& args, int64_t first, int64_t last, Work&& work) {
  int64_t b = sequence_of(args.tokens, args.sequences, first);
  for (int64_t t = first; t < last; ++b) {
    const int64_t begin = args.tokens[b], end = args.tokens[b + 1];
    if (end <= t) continue;
    work(b, begin, end, t, min(end, last));
    t = min(end, last);
  }
}

// The usual width: the inputs that a token sees stay in registers.
template <int kW, typename T>
__global__ void forward_kernel(ShortConvArgs<T> args) {
  using A = Arithmetic<T>;
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kChannels + threadIdx.x, C = args.channels;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile, last = min(first + kTile, args.num_tokens);
  if (c >= C) return;
  const T* __restrict__ x = args.x;
  T* __restrict__ y = args.y;
  A w[kW], seen[kW];
#pragma unroll
  for (int j = 0; j < kW; ++j) w[j] = args.weight[c * kW + j];
  for_segments(args, first, last, [&](int64_t b, int64_t begin, int64_t, int64_t from, int64_t to) {
#pragma unroll
    for (int j = 1; j < kW; ++j) seen[j] = input(args, b, begin, from - kW + j, c);
#pragma unroll 8
    for (int64_t t = from; t < to; ++t) {
#pragma unroll
      for (int j = 1; j < kW; ++j) seen[j - 1] = seen[j];
      seen[kW - 1] = widen(x[t * C + c]);
      A sum = 0;
#pragma unroll
      for (int j = 0; j < kW; ++j) sum += w[j] * seen[j];
      if (args.silu) sum *= sigmoid(sum);
      y[t * C + c] = narrow<T>(sum);
    }
  });
}

// Token t's gradient of the sum gives the last of what inputs up to t - W + 1 get; the first W - 1 tokens behind the
// tile are gone through again.
template <int kW, typename T>
__global__ void backward_kernel(ShortConvArgs<T> args, Arithmetic<T>* partial) {
  using A = Arithmetic<T>;
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kChannels + threadIdx.x, C = args.channels;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile, last = min(first + kTile, args.num_tokens);
  if (c >= C) return;
  const T* __restrict__ x = args.x, * __restrict__ grad_y = args.grad_y;
  T* __restrict__ grad_x = args.grad_x;
  A w[kW], grad_w[kW] = {}, seen[kW], ds[kW];  // ds: gradients of the sums of t - W + 1 to t
#pragma unroll
  for (int j = 0; j < kW; ++j) w[j] = args.weight[c * kW + j];
  for_segments(args, first, last, [&](int64_t b, int64_t begin, int64_t end, int64_t from, int64_t to) {
#pragma unroll
    for (int j = 1; j < kW; ++j) seen[j] = input(args, b, begin, from - kW + j, c), ds[j] = 0;
#pragma unroll 4
    for (int64_t t = from; t < to + kW - 1; ++t) {
#pragma unroll
      for (int j = 1; j < kW; ++j) seen[j - 1] = seen[j], ds[j - 1] = ds[j];
      ds[kW - 1] = 0;
      if (t < end) {
        seen[kW - 1] = widen(x[t * C + c]);
        A d = grad_y ? widen(grad_y[t * C + c]) : A(0);
        if (args.silu) {
          A sum = 0;
#pragma unroll
          for (int j = 0; j < kW; ++j) sum += w[j] * seen[j];
          d *= silu_slope(sum, sigmoid(sum));
        }
        ds[kW - 1] = d;
        if (t < to) {
#pragma unroll
          for (int j = 0; j < kW; ++j) grad_w[j] += d * seen[j];
        }
      }
      const int64_t s = t - (kW - 1);
      if (s < from || !grad_x) continue;
      A sum = 0;
#pragma unroll
      for (int j = 0; j < kW; ++j) sum += w[kW - 1 - j] * ds[j];
      if (args.grad_final && s >= end - (kW - 1))
        sum += widen(args.grad_final[(b * C + c) * (kW - 1) + s - (end - (kW - 1))]);
      grad_x[s * C + c] = narrow<T>(sum);
    }
  });
  if (!partial) return;
#pragma unroll
  for (int j = 0; j < kW; ++j) partial[(blockIdx.x * C + c) * kW + j] = grad_w[j];
}

template <typename T>
__global__ void any_width_forward_kernel(ShortConvArgs<T> args) {
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kChannels + threadIdx.x;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile, last = min(first + kTile, args.num_tokens);
  if (c >= args.channels) return;
  for_segments(args, first, last, [&](int64_t b, int64_t begin, int64_t, int64_t from, int64_t to) {
    for (int64_t t = from; t < to; ++t) {
      auto y = convolved(args, b, begin, t, c);
      if (args.silu) y *= sigmoid(y);
      args.y[t * args.channels + c] = narrow<T>(y);
    }
  });
}

template <typename T>
__global__ void final_state_kernel(ShortConvArgs<T> args) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, taps = args.width - 1;
  if (i >= args.sequences * args.channels * taps) return;
  const int64_t b = i / (args.channels * taps), c = i / taps % args.channels;
  args.final_state[i] = narrow<T>(input(args, b, args.tokens[b], args.tokens[b + 1] - taps + i % taps, c));
}

template <typename T>
__global__ void any_width_backward_kernel(ShortConvArgs<T> args, Arithmetic<T>* partial) {
  using A = Arithmetic<T>;
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kChannels + threadIdx.x, C = args.channels, W = args.width;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile, last = min(first + kTile, args.num_tokens);
  if (c >= C) return;
  for (int64_t j = 0; partial && j < W; ++j) partial[(blockIdx.x * C + c) * W + j] = 0;
  for_segments(args, first, last, [&](int64_t b, int64_t begin, int64_t end, int64_t from, int64_t to) {
    for (int64_t t = from; t < to; ++t) {
      if (args.grad_x) {
        A sum = 0;
        for (int64_t later = t; later < min(end, t + W); ++later)
          sum += args.weight[c * W + W - 1 - (later - t)] * grad_sum(args, b, begin, later, c);
        if (args.grad_final && t >= end - (W - 1))
          sum += widen(args.grad_final[(b * C + c) * (W - 1) + t - (end - (W - 1))]);
        args.grad_x[t * C + c] = narrow<T>(sum);
      }
      if (partial) {
        const A d = grad_sum(args, b, begin, t, c);
        for (int64_t j = 0; j < W; ++j)
          partial[(blockIdx.x * C + c) * W + j] += d * input(args, b, begin, t - (W - 1) + j, c);
      }
    }
  });
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
  const dim3 grid(blocks(args.num_tokens, kTile), blocks(args.channels, kChannels));
  const auto kernel = args.width == 4 ? forward_kernel<4, T> : any_width_forward_kernel<T>;
  if (args.num_tokens > 0) kernel<<<grid, kChannels, 0, current_stream()>>>(args);
  if (states > 0) final_state_kernel<<<blocks(states, kThreads), kThreads, 0, current_stream()>>>(args);
  check_launch("short_conv");
}

template <typename T>
void short_conv_backward(const ShortConvArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t states = args.sequences * args.channels * (args.width - 1), weights = args.channels * args.width;
  const dim3 grid(blocks(args.num_tokens, kTile), blocks(args.channels, kChannels));
  const DeviceMemory partial(args.grad_weight ? grid.x * weights * sizeof(A) : 0);
  const auto kernel = args.width == 4 ? backward_kernel<4, T> : any_width_backward_kernel<T>;
  if (args.num_tokens > 0) kernel<<<grid, kChannels, 0, current_stream()>>>(args, partial.template as<A>());
  if (args.grad_weight) add_partial(grid.x, weights, A(1), partial.template as<A>(), args.grad_weight);
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
