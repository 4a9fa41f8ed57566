#include "ops/common/cuda_rows.cuh"
#include "ops/short_conv/cpu.h"

namespace oryx::ops::cuda {
namespace {

constexpr int kTile = 32;       // tokens that a thread takes of its channels
constexpr int kChannels = 128;  // of a block, for other widths than the usual one
template <typename T>
constexpr int kPackOf = sizeof(T) < sizeof(double) ? 4 : 2;

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

// What a thread takes of the usual width: kPack neighbouring channels of kTile tokens.
template <int kPack, typename T>
struct Part {
  int64_t tile, channel, first, last;
  bool valid;
  __device__ __forceinline__ explicit Part(const ShortConvArgs<T>& args) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, across = args.channels / kPack;
    tile = i / across, channel = i % across * kPack;
    first = tile * kTile, last = min(first + kTile, args.num_tokens);
    valid = first < args.num_tokens;
  }
};

template <int kPack, typename T>
__device__ __forceinline__ void widen_pack(const T* x, Arithmetic<T> (&out)[kPack]) {
  const auto pack = pack_at<kPack>(x);
#pragma unroll
  for (int j = 0; j < kPack; ++j) out[j] = widen(pack.v[j]);
}

// The weights of a thread's channels, those of one tap side by side, and the inputs that its next token sees.
template <int kPack, int kW, typename T>
struct Window {
  using A = Arithmetic<T>;
  A weight[kW][kPack], seen[kW][kPack];

  __device__ __forceinline__ Window(const ShortConvArgs<T>& args, int64_t channel) {
#pragma unroll
    for (int j = 0; j < kPack; ++j)
#pragma unroll
      for (int w = 0; w < kW; ++w) weight[w][j] = args.weight[(channel + j) * kW + w];
  }
  // Before token `from`.
  __device__ __forceinline__ void begin(const ShortConvArgs<T>& args, int64_t b, int64_t begin, int64_t from,
                                        int64_t channel) {
#pragma unroll
    for (int w = 1; w < kW; ++w)
#pragma unroll
      for (int j = 0; j < kPack; ++j) seen[w][j] = input(args, b, begin, from - kW + w, channel + j);
  }
  __device__ __forceinline__ void read(const T* x) {
#pragma unroll
    for (int w = 1; w < kW; ++w)
#pragma unroll
      for (int j = 0; j < kPack; ++j) seen[w - 1][j] = seen[w][j];
    widen_pack(x, seen[kW - 1]);
  }
  __device__ __forceinline__ A sum(int j) const {
    A sum = 0;
#pragma unroll
    for (int w = 0; w < kW; ++w) sum += weight[w][j] * seen[w][j];
    return sum;
  }
};

template <int kPack, int kW, typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(ShortConvArgs<T> args) {
  using A = Arithmetic<T>;
  const Part<kPack, T> part(args);
  if (!part.valid) return;
  Window<kPack, kW, T> window(args, part.channel);
  for_segments(args, part.first, part.last, [&](int64_t b, int64_t begin, int64_t, int64_t from, int64_t to) {
    window.begin(args, b, begin, from, part.channel);
    const T* __restrict__ x = args.x + from * args.channels + part.channel;
    T* __restrict__ y = args.y + from * args.channels + part.channel;
#pragma unroll 4
    for (int64_t t = from; t < to; ++t, x += args.channels, y += args.channels) {
      window.read(x);
      A out[kPack];
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        out[j] = window.sum(j);
        if (args.silu) out[j] *= sigmoid(out[j]);
      }
      put_pack<kPack>(y, narrow_pack<T>(out));
    }
  });
}

// Token t's gradient of the sum gives the last of what inputs up to t - W + 1 get; the first W - 1 tokens behind the
// tile are gone through again.
template <int kPack, int kW, typename T>
__global__ void __launch_bounds__(kThreads, 2) backward_kernel(ShortConvArgs<T> args, Arithmetic<T>* partial) {
  using A = Arithmetic<T>;
  const Part<kPack, T> part(args);
  if (!part.valid) return;
  const int64_t C = args.channels;
  Window<kPack, kW, T> window(args, part.channel);
  A grad_w[kW][kPack] = {}, ds[kW][kPack];  // ds: gradients of the sums of t - W + 1 to t
  for_segments(args, part.first, part.last, [&](int64_t b, int64_t begin, int64_t end, int64_t from, int64_t to) {
    window.begin(args, b, begin, from, part.channel);
#pragma unroll
    for (int w = 1; w < kW; ++w)
#pragma unroll
      for (int j = 0; j < kPack; ++j) ds[w][j] = 0;
    const T* __restrict__ x = args.x + from * C + part.channel;
    const T* __restrict__ grad_y = args.grad_y + from * C + part.channel;
    T* __restrict__ grad_x = args.grad_x + (from - (kW - 1)) * C + part.channel;
    const auto push = [&](bool counts) {
      window.read(x);
      A dy[kPack];
      widen_pack(grad_y, dy);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        if (args.silu) {
          const A sum = window.sum(j);
          dy[j] *= silu_slope(sum, sigmoid(sum));
        }
        ds[kW - 1][j] = dy[j];
        if (counts) {
#pragma unroll
          for (int w = 0; w < kW; ++w) grad_w[w][j] += dy[j] * window.seen[w][j];
        }
      }
    };
    const auto pop = [&](int64_t s) {  // all of token s's gradient is there
      A out[kPack];
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        out[j] = 0;
#pragma unroll
        for (int w = 0; w < kW; ++w) out[j] += window.weight[kW - 1 - w][j] * ds[w][j];
        if (args.grad_final && s >= end - (kW - 1))
          out[j] += widen(args.grad_final[(b * C + part.channel + j) * (kW - 1) + s - (end - (kW - 1))]);
      }
      put_pack<kPack>(grad_x, narrow_pack<T>(out));
    };
    const auto step = [&](int64_t t, bool read, bool counts) {
#pragma unroll
      for (int w = 1; w < kW; ++w)
#pragma unroll
        for (int j = 0; j < kPack; ++j) ds[w - 1][j] = ds[w][j];
      if (read) {
        push(counts);
      } else {
#pragma unroll
        for (int j = 0; j < kPack; ++j) ds[kW - 1][j] = 0;
      }
      if (t - (kW - 1) >= from) pop(t - (kW - 1));
      x += C, grad_y += C, grad_x += C;
    };
#pragma unroll 4
    for (int64_t t = from; t < to; ++t) step(t, true, true);
    for (int64_t t = to; t < to + kW - 1; ++t) step(t, t < end, false);
  });
  if (!partial) return;
#pragma unroll
  for (int j = 0; j < kPack; ++j)
#pragma unroll
    for (int w = 0; w < kW; ++w) partial[(part.tile * C + part.channel + j) * kW + w] = grad_w[w][j];
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
  const int64_t states = args.sequences * args.channels * (args.width - 1), tiles = blocks(args.num_tokens, kTile);
  if (args.num_tokens > 0 && args.width == 4) {
    const int pack = in_packs<kPackOf<T>>(args.channels, args.x, args.y) ? kPackOf<T> : 1;
    const auto kernel = pack > 1 ? forward_kernel<kPackOf<T>, 4, T> : forward_kernel<1, 4, T>;
    kernel<<<blocks(tiles * args.channels / pack, kThreads), kThreads, 0, current_stream()>>>(args);
  } else if (args.num_tokens > 0) {
    any_width_forward_kernel<<<dim3(tiles, blocks(args.channels, kChannels)), kChannels, 0, current_stream()>>>(args);
  }
  if (states > 0) final_state_kernel<<<blocks(states, kThreads), kThreads, 0, current_stream()>>>(args);
  check_launch("short_conv");
}

template <typename T>
void short_conv_backward(const ShortConvArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t states = args.sequences * args.channels * (args.width - 1), weights = args.channels * args.width;
  const int64_t tiles = blocks(args.num_tokens, kTile);
  const DeviceMemory memory(args.grad_weight ? tiles * weights * sizeof(A) : 0);
  A* const partial = memory.template as<A>();
  if (args.num_tokens > 0 && args.width == 4 && args.grad_y && args.grad_x) {
    const int pack = in_packs<kPackOf<T>>(args.channels, args.x, args.grad_y, args.grad_x) ? kPackOf<T> : 1;
    const auto kernel = pack > 1 ? backward_kernel<kPackOf<T>, 4, T> : backward_kernel<1, 4, T>;
    kernel<<<blocks(tiles * args.channels / pack, kThreads), kThreads, 0, current_stream()>>>(args, partial);
  } else if (args.num_tokens > 0) {
    any_width_backward_kernel<<<dim3(tiles, blocks(args.channels, kChannels)), kChannels, 0, current_stream()>>>(
        args, partial);
  }
  if (args.grad_weight) add_partial(tiles, weights, A(1), partial, args.grad_weight);
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
