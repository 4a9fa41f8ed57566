#pragma once

// Vectors of the instruction set a kernel is compiled for, in the compiler's own vector types. Included by cpu.cpp
// only.

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "ops/common/bf16.h"

namespace oryx::ops::ORYX_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <typename T>
struct VecType;
template <>
struct VecType<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t mask __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VecType<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t mask __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VecType<uint32_t> {
  typedef uint32_t type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t mask __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vec = typename VecType<T>::type;
template <typename T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

constexpr int64_t round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}
// The next multiple of the vector length: rows of workspaces are padded to it with zeros.
template <typename T>
constexpr int64_t padded(int64_t n) {
  return round_up(n, kLanes<T>);
}

// Distance of rows of that width: not a multiple of 512 bytes, where a panel's rows would share few sets of the first
// cache.
template <typename A>
constexpr int64_t skewed(int64_t width) {
  return width % (512 / static_cast<int64_t>(sizeof(A))) == 0 ? width + kLanes<A> : width;
}

template <typename T>
inline Vec<T> vload(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <typename T>
inline void vstore(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof(v));
}
template <typename T>
inline Vec<T> splat(T x) {
  return Vec<T>{} + x;
}
namespace detail {
template <typename T, typename Pick, size_t... I>
inline Vec<T> shuffle(Vec<T> a, Vec<T> b, Pick, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Pick{}(static_cast<int>(I))...);
#else
  return __builtin_shuffle(a, b, typename VecType<T>::mask{Pick{}(static_cast<int>(I))...});
#endif
}
}  // namespace detail

// Element i is number pick(i) of the elements of a, then b; `pick` captures nothing.
template <typename T, typename Pick>
inline Vec<T> shuffle(Vec<T> a, Vec<T> b, Pick pick) {
  return detail::shuffle<T>(a, b, pick, std::make_index_sequence<kLanes<T>>{});
}

// By halves: the additions of one level do not wait for each other.
template <typename T, int Half = kLanes<T> / 2>
inline T vsum(Vec<T> v) {
  if constexpr (Half == 0)
    return v[0];
  else
    return vsum<T, Half / 2>(v + shuffle<T>(v, v, [](int i) { return (i + Half) % kLanes<T>; }));
}

typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));

// exp, within 2 ulp; 0 below -87.33 (where a float's exp leaves the normal range), +inf above 88.72. Cody-Waite
// reduction and a polynomial of degree 6 for 2^r on [-ln2/2, ln2/2].
template <typename V>
inline V exp_polynomial(V r) {
  V p = r * 1.3981999e-3f + 8.3334519e-3f;
  p = p * r + 4.1665796e-2f;
  p = p * r + 1.6666664e-1f;
  p = p * r + 5.0000001e-1f;
  return (p * r) * r + r + 1.0f;
}
#if defined(__AVX512F__)
inline Vec<float> vexp(Vec<float> x) {
  const __m512 v = reinterpret_cast<__m512>(x);
  const __mmask16 kept = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-87.33654f), _CMP_NLT_UQ);  // NaN too
  // GCC 12's headers warn of an uninitialised value in the forms without a mask.
  const __m512 y = _mm512_maskz_min_ps(0xffff, _mm512_set1_ps(89.0f), v);
  const __m512 n = _mm512_maskz_roundscale_ps(0xffff, _mm512_mul_ps(y, _mm512_set1_ps(1.44269504f)), 8);  // to nearest
  const Vec<float> k = reinterpret_cast<Vec<float>>(n);
  const Vec<float> r = reinterpret_cast<Vec<float>>(y) - k * 0.693359375f - k * -2.12194440e-4f;
  return reinterpret_cast<Vec<float>>(_mm512_maskz_scalef_ps(kept, reinterpret_cast<__m512>(exp_polynomial(r)), n));
}
#else
inline Vec<float> vexp(Vec<float> x) {
  // 1.5 * 2^23: adding it rounds to an integer n, which then are the low bits. Added to the exponent they are exact for
  // all that is kept: 2^n of them overflows only above 88.72.
  const Vec<float> magic = splat(12582912.0f), rounded = x * 1.44269504f + magic, n = rounded - magic;
  const Vec<float> p = exp_polynomial(x - n * 0.693359375f - n * -2.12194440e-4f);
  const Words scaled = reinterpret_cast<Words>(p) + (reinterpret_cast<Words>(rounded) << 23);
  const Vec<float> out =
      x <= splat(88.72283f) ? reinterpret_cast<Vec<float>>(scaled) : x + __builtin_inff();  // NaN too
  return x < splat(-87.33654f) ? Vec<float>{} : out;
}
#endif
inline Vec<double> vexp(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

}  // namespace oryx::ops::ORYX_ISA
