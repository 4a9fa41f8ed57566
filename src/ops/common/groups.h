#pragma once

// Rows for kernels that memory bounds. A load of bfloat16 as wide as a vector becomes two vectors of floats, the even
// elements and the odd ones, by a shift and a mask; to widen and to narrow in order (rows.h) take twice as many
// instructions. Included by cpu.cpp only.

#include <type_traits>

#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

struct Two {
  Vec<float> even{}, odd{};
  Two() = default;
  Two(float x) : even(splat(x)), odd(even) {}  // NOLINT(google-explicit-constructor): as vectors take scalars
  Two(Vec<float> e, Vec<float> o) : even(e), odd(o) {}
  Two operator-() const { return {-even, -odd}; }
  Two& operator+=(Two x) { return even += x.even, odd += x.odd, *this; }
  Two& operator*=(Two x) { return even *= x.even, odd *= x.odd, *this; }
};
inline Two operator+(Two x, Two y) {
  return {x.even + y.even, x.odd + y.odd};
}
inline Two operator-(Two x, Two y) {
  return {x.even - y.even, x.odd - y.odd};
}
inline Two operator*(Two x, Two y) {
  return {x.even * y.even, x.odd * y.odd};
}
inline Two operator/(Two x, Two y) {
  return {x.even / y.even, x.odd / y.odd};
}

#if defined(__AVX512DQ__)
// 2^t, within 2e-7 and at infinities too: the polynomial for 2^(t - floor(t)), which one instruction gives, times
// 2^floor(t).
inline Two power_of_two(Two t) {
  const auto fraction = [](Vec<float> x) {
    return reinterpret_cast<Vec<float>>(_mm512_maskz_reduce_ps(0xffff, reinterpret_cast<__m512>(x), 9));
  };
  const auto scale = [](Vec<float> x, Vec<float> n) {
    return reinterpret_cast<Vec<float>>(
        _mm512_maskz_scalef_ps(0xffff, reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(n)));
  };
  const Two f{fraction(t.even), fraction(t.odd)};
  Two p = f * 1.87757669e-3f + 8.98934063e-3f;
  p = p * f + 5.58263175e-2f;
  p = p * f + 0.240153611f;
  p = p * f + 0.693153083f;
  p = p * f + 0.99999994f;
  return {scale(p.even, t.even), scale(p.odd, t.odd)};
}
// Within 1e-7 (2 + |x|), in fewer instructions than a float's.
inline Two vexp(Two x) {
  return power_of_two(x * 1.44269504f);
}
#else
inline Two vexp(Two x) {
  return {vexp(x.even), vexp(x.odd)};
}
#endif

// What a step over a row of T takes, and how many elements it holds.
template <typename T>
using Group = std::conditional_t<std::is_same_v<T, Bf16>, Two, Vec<Arithmetic<T>>>;
template <typename T>
inline constexpr int64_t kGroup = sizeof(Group<T>) / sizeof(Arithmetic<T>);

// Where element i is in a row of A that goes beside rows of T, in the order of groups; such rows have whole groups.
template <typename T>
inline int64_t place(int64_t i) {
  if constexpr (!std::is_same_v<T, Bf16>) return i;
  constexpr int64_t kHalf = kGroup<T> / 2;
  return i / kGroup<T> * kGroup<T> + i % 2 * kHalf + i % kGroup<T> / 2;
}

template <typename T>
inline Arithmetic<T> group_sum(Group<T> x) {
  if constexpr (std::is_same_v<T, Bf16>)
    return vsum<float>(x.even + x.odd);
  else
    return vsum<Arithmetic<T>>(x);
}

// Asks for memory that the kernel reads a few steps on: the processor looks ahead by itself for less than it takes to
// come when a step has many instructions.
template <typename T>
inline void prefetch(const T* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + 4096);
}

// A group of a row of T, or its first elements (the end of the row), with zeros behind them.
template <typename T, typename Size>
inline Group<T> read(const T* p, Size size) {
  if constexpr (std::is_same_v<T, Bf16>) {
    Words bits{};
    if constexpr (std::is_same_v<Size, Whole>)
      std::memcpy(&bits, p, sizeof(bits));
    else
#if defined(__AVX512BW__)
      bits = reinterpret_cast<Words>(_mm512_maskz_loadu_epi16((1u << size.n) - 1, p));
#else
      std::memcpy(&bits, p, static_cast<size_t>(size.n) * sizeof(T));
#endif
    return {reinterpret_cast<Vec<float>>(bits << 16), reinterpret_cast<Vec<float>>(bits & 0xffff0000u)};
  } else {
    return get(p, size);
  }
}

// Rounded to bfloat16, to nearest even, in the upper half of each word. A NaN that is the result of arithmetic is quiet
// and stays one.
inline Words round_words(Vec<float> x) {
  const Words bits = reinterpret_cast<Words>(x), up = ((bits >> 16) & 1u) + 0x7fffu;
  return bits + (x == x ? up : Words{});
}

template <typename T, typename Size>
inline void write(T* p, Group<T> x, Size size) {
  if constexpr (std::is_same_v<T, Bf16>) {
    const Words bits = (round_words(x.even) >> 16) | (round_words(x.odd) & 0xffff0000u);
    if constexpr (std::is_same_v<Size, Whole>)
      std::memcpy(p, &bits, sizeof(bits));
    else
#if defined(__AVX512BW__)
      _mm512_mask_storeu_epi16(p, (1u << size.n) - 1, reinterpret_cast<__m512i>(bits));
#else
      std::memcpy(p, &bits, static_cast<size_t>(size.n) * sizeof(T));
#endif
  } else {
    put(p, x, size);
  }
}

// A group of a row of A in the order of groups of T.
template <typename T, typename A>
inline Group<T> read_placed(const A* p) {
  if constexpr (std::is_same_v<T, Bf16>)
    return {vload(p), vload(p + kLanes<A>)};
  else
    return vload(p);
}
template <typename T, typename A>
inline void write_placed(A* p, Group<T> x) {
  if constexpr (std::is_same_v<T, Bf16>)
    vstore(p, x.even), vstore(p + kLanes<A>, x.odd);
  else
    vstore(p, x);
}
// dst, of whole groups, = src [n] in the order of groups of T, and zeros.
template <typename T, typename A>
inline void place_row(const A* src, int64_t n, A* dst) {
  fill_zero(dst, round_up(n, kGroup<T>));
  for (int64_t i = 0; i < n; ++i) dst[place<T>(i)] = src[i];
}

// step(i, size) for each group of a row of n elements of T; `size` says how much of the group is in the row.
template <typename T, typename Step>
inline void for_groups(int64_t n, Step&& step) {
  int64_t i = 0;
  for (; i + kGroup<T> <= n; i += kGroup<T>) step(i, Whole{});
  if (i < n) step(i, Part{n - i});
}

}  // namespace oryx::ops::ORYX_ISA
