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

// A block for each row.
template <typename T>
__global__ void reduce_kernel(int64_t width, const T* logits, const int64_t* targets, int64_t first,
                              Arithmetic<T>* maximum, Arithmetic<T>* sum, Arithmetic<T>* target) {
  using A = Arithmetic<T>;
  const int64_t row = blockIdx.x;
  const T* x = logits + row * width;
  A top = maximum[row];
  for (int64_t i = threadIdx.x; i < width; i += kThreads) top = max(top, widen(x[i]));
  top = of_block(top, [](A a, A b) { return max(a, b); });
  A added = 0;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) added += exponential(widen(x[i]) - top);
  added = of_block(added, [](A a, A b) { return a + b; });
  if (threadIdx.x > 0) return;
  sum[row] = sum[row] * exponential(maximum[row] - top) + added;
  maximum[row] = top;
  const int64_t word = targets[row] - first;
  if (word >= 0 && word < width) target[row] = widen(x[word]);
}

template <typename T>
__global__ void gradient_kernel(int64_t width, T* logits, const int64_t* targets, int64_t first,
                                const Arithmetic<T>* lse, const Arithmetic<T>* grad) {
  using A = Arithmetic<T>;
  const int64_t row = blockIdx.x, word = targets[row] - first;
  T* x = logits + row * width;
  const A shift = lse[row], factor = grad[row];
  for (int64_t i = threadIdx.x; i < width; i += kThreads)
    x[i] = narrow<T>((exponential(widen(x[i]) - shift) - (i == word ? A(1) : A(0))) * factor);
}

template <typename T>
__global__ void add_kernel(int64_t n, Arithmetic<T>* to, const T* product) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] += widen(product[i]);
}

}  // namespace

template <typename T>
void cross_entropy_reduce(int64_t n, int64_t width, const void* logits, const int64_t* targets, int64_t first,
                          void* maximum, void* sum, void* target) {
  using A = Arithmetic<T>;
  reduce_kernel<T><<<static_cast<unsigned>(n), kThreads, 0, current_stream()>>>(
      width, static_cast<const T*>(logits), targets, first, static_cast<A*>(maximum), static_cast<A*>(sum),
      static_cast<A*>(target));
  check_launch("linear_cross_entropy");
}

template <typename T>
void cross_entropy_gradient(int64_t n, int64_t width, void* logits, const int64_t* targets, int64_t first,
                            const void* lse, const void* grad) {
  using A = Arithmetic<T>;
  gradient_kernel<T><<<static_cast<unsigned>(n), kThreads, 0, current_stream()>>>(
      width, static_cast<T*>(logits), targets, first, static_cast<const A*>(lse), static_cast<const A*>(grad));
  check_launch("linear_cross_entropy");
}

template <typename T>
void cross_entropy_add(int64_t n, Arithmetic<T>* to, const T* product) {
  add_kernel<T>
      <<<static_cast<unsigned>((n + kThreads - 1) / kThreads), kThreads, 0, current_stream()>>>(n, to, product);
  check_launch("linear_cross_entropy");
}

#define ORYX_INSTANTIATE(T)                                                                                            \
  template void cross_entropy_reduce<T>(int64_t, int64_t, const void*, const int64_t*, int64_t, void*, void*, void*);  \
  template void cross_entropy_gradient<T>(int64_t, int64_t, void*, const int64_t*, int64_t, const void*, const void*); \
  template void cross_entropy_add<T>(int64_t, Arithmetic<T>*, const T*);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)

}  // namespace oryx::ops::cuda
