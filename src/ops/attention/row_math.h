#pragma once

// What the kernels share that take rows of logits. The backward pass must come to the same logits, bit by bit, as the
// forward pass, or differences of large ones would not cancel. Included by cpu.cpp only.

#include <cmath>

#include "ops/attention/cpu.h"
#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

template <typename V>
inline V vmax(V a, V b) {
  return a > b ? a : b;
}

// A logit's distance from the maximum.
template <typename V, typename A, typename M>
inline V below(V product, A scale, M maximum) {
  return product * scale - maximum;
}

// A vector whose sum is that of q[i] * k[i]; n is a multiple of the vector length. Two sums, since each product would
// wait for the one before it.
template <typename A, typename X>
inline Vec<A> products(int64_t n, const X* q, const X* k) {
  constexpr int64_t L = kLanes<A>;
  const auto product = [&](int64_t i) { return Vec<A>(get(q + i, Whole{})) * Vec<A>(get(k + i, Whole{})); };
  Vec<A> even{}, odd{};
  int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) even += product(i), odd += product(i + L);
  if (i < n) even += product(i);
  return even + odd;
}

// out[x] = vsum(v[x]), the same bits.
template <typename A>
inline void sum_four(const Vec<A>* v, A* out) {
  constexpr int L = kLanes<A>;
  if constexpr (L < 4) {
    for (int x = 0; x < 4; ++x) out[x] = vsum<A>(v[x]);
  } else {
    // Two vectors become one, whose halves are the sums of their halves; then quarters.
    const auto halves = [](Vec<A> a, Vec<A> b) {
      return shuffle<A>(a, b, [](int i) { return i < L / 2 ? i : i + L / 2; }) +
             shuffle<A>(a, b, [](int i) { return i < L / 2 ? i + L / 2 : i + L; });
    };
    const Vec<A> ab = halves(v[0], v[1]), cd = halves(v[2], v[3]);
    Vec<A> sum = shuffle<A>(ab, cd, [](int i) { return i % (L / 4) + i / (L / 4) * (L / 2); }) +
                 shuffle<A>(ab, cd, [](int i) { return i % (L / 4) + i / (L / 4) * (L / 2) + L / 4; });
    if constexpr (L >= 16) sum += shuffle<A>(sum, sum, [](int i) { return i ^ 2; });
    if constexpr (L >= 8) sum += shuffle<A>(sum, sum, [](int i) { return i ^ 1; });
    for (int x = 0; x < 4; ++x) out[x] = sum[x * (L / 4)];
  }
}

// Writes row `at` of [R, H]: o [padded Vd] divided by the sum.
template <typename T, typename A>
inline void finish(const AttentionForward& args, int64_t at, const A* o, A maximum, A sum) {
  const int64_t Vd = args.value_dim;
  T* out = static_cast<T*>(args.o) + at * Vd;
  T* residual = args.residual ? static_cast<T*>(args.residual) + at * Vd : nullptr;
  const A inverse = 1 / sum;
  for_vectors<A>(Vd, [&](int64_t d, auto size) {
    const Vec<A> x = Vec<A>(get(o + d, size)) * inverse;
    put(out + d, x, size);
    if (residual) put(residual + d, Vec<A>(x - get(out + d, size)), size);
  });
  static_cast<A*>(args.lse)[2 * at] = maximum;
  static_cast<A*>(args.lse)[2 * at + 1] = std::log(sum);
}

}  // namespace oryx::ops::ORYX_ISA
