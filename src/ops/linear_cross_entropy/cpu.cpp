#include "ops/linear_cross_entropy/cpu.h"

#include <type_traits>

#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {
namespace {

// The maximum of `top` and a row.
template <typename A, typename T>
inline A row_maximum(const T* x, int64_t width, A top) {
  Vec<A> tops = splat(top);
  int64_t j = 0;
  for (; j + kLanes<A> <= width; j += kLanes<A>) {
    const Vec<A> v = get(x + j, Whole{});
    tops = tops > v ? tops : v;
  }
  for (int l = 0; l < kLanes<A>; ++l) top = top > tops[l] ? top : tops[l];
  for (; j < width; ++j) {
    const A v = load<A>(x + j);
    top = top > v ? top : v;
  }
  return top;
}

}  // namespace

template <typename T>
void cross_entropy_reduce(int64_t n, int64_t width, const void* logits, const int64_t* targets, int64_t first,
                          void* maximum, void* sum, void* target) {
  using A = Arithmetic<T>;
  parallel_for(n, row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* x = static_cast<const T*>(logits) + i * width;
      A &running_max = static_cast<A*>(maximum)[i], &running_sum = static_cast<A*>(sum)[i];
      const A top = row_maximum<A>(x, width, running_max);
      Vec<A> total{};
      for_vectors<A>(width, [&](int64_t j, auto size) {
        Vec<A> p = vexp(Vec<A>(get(x + j, size)) - top);
        if constexpr (std::is_same_v<decltype(size), Part>)
          for (int64_t l = size.n; l < kLanes<A>; ++l) p[l] = 0;
        total += p;
      });
      running_sum = running_sum * std::exp(running_max - top) + vsum<A>(total);
      running_max = top;
      const int64_t word = targets[i] - first;
      if (word >= 0 && word < width) static_cast<A*>(target)[i] = load<A>(x + word);
    }
  });
}

template <typename T>
void cross_entropy_gradient(int64_t n, int64_t width, void* logits, const int64_t* targets, int64_t first,
                            const void* lse, const void* grad) {
  using A = Arithmetic<T>;
  parallel_for(n, row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* x = static_cast<T*>(logits) + i * width;
      const A log_sum = static_cast<const A*>(lse)[i], scale = static_cast<const A*>(grad)[i];
      const int64_t word = targets[i] - first;
      const bool here = word >= 0 && word < width;
      const A logit = here ? load<A>(x + word) : A(0);
      for_vectors<A>(width, [&](int64_t j, auto size) {
        put(x + j, Vec<A>(vexp(Vec<A>(get(x + j, size)) - log_sum) * scale), size);
      });
      if (here) store(x + word, scale * std::expm1(logit - log_sum));
    }
  });
}

void cross_entropy_add(int64_t n, float* to, const Bf16* product) {
  using A = float;
  constexpr int64_t kPiece = 4096;
  parallel_for((n + kPiece - 1) / kPiece, 4, [&](int64_t begin, int64_t end) {
    for_vectors<A>((end * kPiece < n ? end * kPiece : n) - begin * kPiece, [&](int64_t j, auto size) {
      const int64_t i = begin * kPiece + j;
      put(to + i, Vec<A>(get(to + i, size) + get(product + i, size)), size);
    });
  });
}

#define ORYX_INSTANTIATE(T)                                                                                           \
  template void cross_entropy_reduce<T>(int64_t, int64_t, const void*, const int64_t*, int64_t, void*, void*, void*); \
  template void cross_entropy_gradient<T>(int64_t, int64_t, void*, const int64_t*, int64_t, const void*, const void*);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)

}  // namespace oryx::ops::ORYX_ISA
