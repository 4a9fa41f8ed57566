#pragma once

// Rearranging workspaces for products: transposes, and pairs of bfloat16. Included by cpu.cpp only.

#include "ops/common/gemm.h"
#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

// The first (second) halves of two vectors, element by element in turn.
template <bool Second, typename T>
inline Vec<T> interleave(Vec<T> a, Vec<T> b) {
  return shuffle<T>(a, b, [](int i) { return i % 2 * kLanes<T> + i / 2 + (Second ? kLanes<T> / 2 : 0); });
}

// dst[j * ldd + i] = src[i * lds + j] for i < m, j < n, both rounded up to whole vectors. Each stage is a perfect
// shuffle of a square of one vector's side, which rotates the bits of (row, column); after log2(side) of them the two
// are swapped.
template <typename T>
inline void transpose(int64_t m, int64_t n, const T* src, int64_t lds, T* dst, int64_t ldd) {
  constexpr int L = kLanes<T>;
  for (int64_t i = 0; i < m; i += L)
    for (int64_t j = 0; j < n; j += L) {
      Vec<T> x[L], y[L];
      for (int r = 0; r < L; ++r) x[r] = vload(src + (i + r) * lds + j);
      for (int half = 1; half < L; half *= 2) {
        for (int r = 0; r < L / 2; ++r) {
          y[2 * r] = interleave<false, T>(x[r], x[r + L / 2]);
          y[2 * r + 1] = interleave<true, T>(x[r], x[r + L / 2]);
        }
        for (int r = 0; r < L; ++r) x[r] = y[r];
      }
      for (int r = 0; r < L; ++r) vstore(dst + (j + r) * ldd + i, x[r]);
    }
}

#if defined(__AVX512BF16__)
inline HalfWords first_half(Words x) {
  HalfWords half;
  std::memcpy(&half, &x, sizeof(half));
  return half;
}
// Rounded to bfloat16: `low` then `high`, or an element of each in turn.
inline Words round_both(Vec<float> low, Vec<float> high) {
  return reinterpret_cast<Words>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
}
inline Vec<Pair> pair(Vec<float> low, Vec<float> high) {
  // Halves i and 16 + i become word i.
  constexpr Words turns = Words{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} * 0x10001u + 0x100000u;
  return reinterpret_cast<Vec<Pair>>(_mm512_maskz_permutexvar_epi16(0xffffffffu, reinterpret_cast<__m512i>(turns),
                                                                    reinterpret_cast<__m512i>(round_both(low, high))));
}

// dst [ceil(k/2), n] of pairs: rows 2p and 2p + 1 of src [k, n], zeros for a row k. n is a multiple of kLanes<float>.
// With more Parts, `part` elements apart, each next one is what the sum of those before lacks: three hold all 24 bits.
template <int Parts = 1>
inline void pair_rows(int64_t k, int64_t n, const float* src, int64_t lds, Pair* dst, int64_t ldd, int64_t part = 0) {
  for (int64_t p = 0; p < k; p += 2)
    for (int64_t j = 0; j < n; j += kLanes<float>) {
      Vec<float> low = vload(src + p * lds + j), high = p + 1 < k ? vload(src + (p + 1) * lds + j) : Vec<float>{};
      Pair* to = dst + p / 2 * ldd + j;
      for (int i = 0;; ++i, to += part) {
        const Vec<Pair> both = pair(low, high);
        vstore(to, both);
        if (i == Parts - 1) break;
        low -= reinterpret_cast<Vec<float>>(both << 16);
        high -= reinterpret_cast<Vec<float>>(both & 0xffff0000u);
      }
    }
}
// dst [padded row] = src [n], two neighbours to a word; Parts as above.
template <int Parts = 1>
inline void pair_columns(int64_t n, const float* src, Pair* dst, int64_t part = 0) {
  for (int64_t j = 0; j < n; j += 2 * kLanes<float>) {
    const bool whole = j + kLanes<float> < n;
    Vec<float> low = vload(src + j), high = whole ? vload(src + j + kLanes<float>) : Vec<float>{};
    Pair* to = dst + j / 2;
    for (int i = 0;; ++i, to += part) {
      const Words both = round_both(low, high);
      const HalfWords half = first_half(both);
      if (whole)
        vstore(to, both);
      else
        std::memcpy(to, &half, sizeof(half));
      if (i == Parts - 1) break;
      low -= widen(half);
      high -= widen(first_half(shuffle<Pair>(both, both, [](int l) { return (l + 8) % 16; })));
    }
  }
}
#endif

// The pairs of bfloat16 rows `stride` elements apart; columns from n to its whole vector become zeros.
inline void pair_rows(int64_t k, int64_t n, const Bf16* src, int64_t stride, Pair* dst, int64_t ldd) {
  for (int64_t p = 0; p < k; p += 2) {
    const Bf16 *low = src + p * stride, *high = low + stride;
    for_vectors<float>(n, [&](int64_t j, auto size) {
      const Words next = p + 1 < k ? reinterpret_cast<Words>(get(high + j, size)) : Words{};
      vstore(dst + p / 2 * ldd + j, (reinterpret_cast<Words>(get(low + j, size)) >> 16) | next);
    });
  }
}

// A row of n stored elements as elements of products, zeros behind them up to `width` of the stored elements (a
// multiple of what a vector of products' elements holds).
template <typename T>
inline void load_elements(const T* src, int64_t n, int64_t width, Element<T>* dst) {
  if constexpr (kPairs<T>) {
    constexpr int64_t L = 2 * kLanes<Pair>;
    int64_t i = 0;
    for (; i + L <= n; i += L) std::memcpy(dst + i / 2, src + i, L * sizeof(T));
    if (i == width) return;
    std::memcpy(dst + i / 2, src + i, static_cast<size_t>(n - i) * sizeof(T));
    std::memset(reinterpret_cast<T*>(dst) + n, 0, static_cast<size_t>(width - n) * sizeof(T));
  } else {
    load_padded(src, n, dst);
    fill_zero(dst + padded<Element<T>>(n), width - padded<Element<T>>(n));
  }
}

}  // namespace oryx::ops::ORYX_ISA
