#pragma once

// Vectors of the instruction set a kernel is compiled for, in the compiler's own vector types. Included by cpu.cpp
// only.

#include <cmath>
#include <cstdint>
#include <cstring>

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
template <typename T>
using Vec = typename VecType<T>::type;
template <typename T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// The next multiple of the vector length: rows of workspaces are padded to it with zeros.
template <typename T>
constexpr int64_t padded(int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
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
template <typename T>
inline T vsum(Vec<T> v) {
  // By halves: the additions of one level do not wait for each other.
  T x[kLanes<T>];
  std::memcpy(x, &v, sizeof(v));
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

// exp, within 2 ulp; 0 below -87.33 (where a float's exp leaves the normal range), +inf above 88.72. Cody-Waite
// reduction and a polynomial of degree 6 for 2^r on [-ln2/2, ln2/2].
inline Vec<float> vexp(Vec<float> x) {
  using Mask = VecType<float>::mask;
  const Vec<float> low = splat(-87.33654f), high = splat(88.72283f);
  const Mask under = x<low, over = x> high, nan = x != x;
  Vec<float> y = under ? low : x;
  y = over ? high : y;
  const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec<float> n = (y * 1.44269504f + magic) - magic;
  const Vec<float> r = y - n * 0.693359375f - n * -2.12194440e-4f;
  Vec<float> p = r * 1.3981999e-3f + 8.3334519e-3f;
  p = p * r + 4.1665796e-2f;
  p = p * r + 1.6666664e-1f;
  p = p * r + 5.0000001e-1f;
  p = (p * r) * r + r + 1.0f;
  // 2^n in two factors, so that n = 128 does not overflow the exponent before the product does.
  const Mask k = __builtin_convertvector(n, Mask), half = k >> 1;
  Vec<float> a, b;
  const Mask a_bits = (half + 127) << 23, b_bits = (k - half + 127) << 23;
  std::memcpy(&a, &a_bits, sizeof(a));
  std::memcpy(&b, &b_bits, sizeof(b));
  Vec<float> out = p * a * b;
  out = under ? Vec<float>{} : out;
  out = over ? splat(__builtin_inff()) : out;
  return nan ? x : out;
}
inline Vec<double> vexp(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

// dst[0:n) = src[0:n) * scale, then zeros up to `pad`.
template <typename T, typename In>
inline void load_row(const In* src, int64_t n, int64_t pad, T* dst, T scale = T(1)) {
  for (int64_t i = 0; i < n; ++i) dst[i] = load<T>(src + i) * scale;
  for (int64_t i = n; i < pad; ++i) dst[i] = 0;
}
template <typename T, typename Out>
inline void store_row(const T* src, int64_t n, Out* dst) {
  for (int64_t i = 0; i < n; ++i) store(dst + i, src[i]);
}

}  // namespace oryx::ops::ORYX_ISA
