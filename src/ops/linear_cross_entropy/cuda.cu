#include "ops/common/cuda_rows.cuh"
#include "ops/linear_cross_entropy/cpu.h"

namespace oryx::ops::cuda {
namespace {

constexpr int kWarps = kThreads / kWarp;

// Every thread of the block gets combine over all threads' x.
template <typename A, typename Combine>
__device__ A of_block(A x, Combine combine) {
  __shared__ A shared[kWarps];
  for (int step = kWarp / 2; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(kAllLanes, x, step));
  __syncthreads();  // whoever still reads the last result
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = shared[0];
  for (int w = 1; w < kWarps; ++w) x = combine(x, shared[w]);
  return x;
}

// work(pack, its first element's place) for a row's packs, shared out among a block.
template <int kPack, typename T, typename Work>
__device__ __forceinline__ void for_packs(int64_t width, const T* x, Work&& work) {
#pragma unroll 4
  for (int64_t i = threadIdx.x * kPack; i < width; i += kThreads * kPack) work(pack_at<kPack>(x + i), i);
}

// A block for each row.
template <int kPack, typename T>
__global__ void reduce_kernel(int64_t width, const T* logits, const int64_t* targets, int64_t first,
                              Arithmetic<T>* maximum, Arithmetic<T>* sum, Arithmetic<T>* target) {
  using A = Arithmetic<T>;
  const int64_t row = blockIdx.x;
  const T* x = logits + row * width;
  const A before = maximum[row];
  A own = before, added = 0;  // this thread's maximum, and its sum of exp(logit - own)
  for_packs<kPack>(width, x, [&](const auto& pack, int64_t) {
    A top = own;
#pragma unroll
    for (int e = 0; e < kPack; ++e) top = max(top, widen(pack.v[e]));
    added *= exponential(own - top);
    own = top;
#pragma unroll
    for (int e = 0; e < kPack; ++e) added += exponential(widen(pack.v[e]) - top);
  });
  const A top = of_block(own, [](A a, A b) { return max(a, b); });
  added = of_block(added * exponential(own - top), [](A a, A b) { return a + b; });
  if (threadIdx.x > 0) return;
  sum[row] = sum[row] * exponential(before - top) + added;
  maximum[row] = top;
  const int64_t word = targets[row] - first;
  if (word >= 0 && word < width) target[row] = widen(x[word]);
}

template <int kPack, typename T>
__global__ void gradient_kernel(int64_t width, T* logits, const int64_t* targets, int64_t first,
                                const Arithmetic<T>* lse, const Arithmetic<T>* grad) {
  using A = Arithmetic<T>;
  const int64_t row = blockIdx.x, word = targets[row] - first;
  T* x = logits + row * width;
  const A shift = lse[row], factor = grad[row];
  for_packs<kPack>(width, x, [&](auto pack, int64_t i) {
#pragma unroll
    for (int e = 0; e < kPack; ++e)
      pack.v[e] = narrow<T>((exponential(widen(pack.v[e]) - shift) - (i + e == word ? A(1) : A(0))) * factor);
    put_pack<kPack>(x + i, pack);
  });
}

}  // namespace

template <typename T>
void cross_entropy_reduce(int64_t n, int64_t width, const void* logits, const int64_t* targets, int64_t first,
                          void* maximum, void* sum, void* target) {
  using A = Arithmetic<T>;
  const T* const x = static_cast<const T*>(logits);
  const auto kernel = in_packs<kFull<T>>(width, x) ? reduce_kernel<kFull<T>, T> : reduce_kernel<1, T>;
  kernel<<<static_cast<unsigned>(n), kThreads, 0, current_stream()>>>(
      width, x, targets, first, static_cast<A*>(maximum), static_cast<A*>(sum), static_cast<A*>(target));
  check_launch("linear_cross_entropy");
}

template <typename T>
void cross_entropy_gradient(int64_t n, int64_t width, void* logits, const int64_t* targets, int64_t first,
                            const void* lse, const void* grad) {
  using A = Arithmetic<T>;
  T* const x = static_cast<T*>(logits);
  const auto kernel = in_packs<kFull<T>>(width, x) ? gradient_kernel<kFull<T>, T> : gradient_kernel<1, T>;
  kernel<<<static_cast<unsigned>(n), kThreads, 0, current_stream()>>>(
      width, x, targets, first, static_cast<const A*>(lse), static_cast<const A*>(grad));
  check_launch("linear_cross_entropy");
}

#define ORYX_INSTANTIATE(T)                                                                                           \
  template void cross_entropy_reduce<T>(int64_t, int64_t, const void*, const int64_t*, int64_t, void*, void*, void*); \
  template void cross_entropy_gradient<T>(int64_t, int64_t, void*, const int64_t*, int64_t, const void*, const void*);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)

}  // namespace oryx::ops::cuda
