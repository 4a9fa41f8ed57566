#pragma once

// Small matrix products for workspaces in cache, register-blocked. Included by cpu.cpp only.

#include "ops/common/vec.h"

namespace oryx::ops::ORYX_ISA {

namespace detail {

#if defined(__AVX512F__)
inline constexpr int kRows = 8;
#else
inline constexpr int kRows = 6;
#endif

template <typename T, int Rows, int Vectors, bool Accumulate>
inline void tile(int64_t k, const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t ldb, T* c, int64_t ldc) {
  Vec<T> sum[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) sum[r][v] = Accumulate ? vload(c + r * ldc + v * kLanes<T>) : Vec<T>{};
  for (int64_t p = 0; p < k; ++p) {
    Vec<T> row[Vectors];
    for (int v = 0; v < Vectors; ++v) row[v] = vload(b + p * ldb + v * kLanes<T>);
    for (int r = 0; r < Rows; ++r) {
      const T x = a[r * a_row + p * a_col];
      for (int v = 0; v < Vectors; ++v) sum[r][v] += x * row[v];
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) vstore(c + r * ldc + v * kLanes<T>, sum[r][v]);
}

template <typename T, int Rows, bool Accumulate>
inline void row_block(int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t ldb, T* c,
                      int64_t ldc) {
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= n; j += 2 * kLanes<T>)
    tile<T, Rows, 2, Accumulate>(k, a, a_row, a_col, b + j, ldb, c + j, ldc);
  for (; j < n; j += kLanes<T>) tile<T, Rows, 1, Accumulate>(k, a, a_row, a_col, b + j, ldb, c + j, ldc);
}

template <typename T, int Rows, bool Accumulate>
inline void remainder(int64_t rows, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_col, const T* b,
                      int64_t ldb, T* c, int64_t ldc) {
  if constexpr (Rows > 0) {
    if (rows == Rows)
      row_block<T, Rows, Accumulate>(n, k, a, a_row, a_col, b, ldb, c, ldc);
    else
      remainder<T, Rows - 1, Accumulate>(rows, n, k, a, a_row, a_col, b, ldb, c, ldc);
  }
}

}  // namespace detail

// C[m, n] = A[m, k] B[k, n], or += when Accumulate. Element (i, p) of A is a[i * a_row + p * a_col], so a transposed A
// costs nothing; B and C are row-major, and n is a multiple of kLanes<T> (padded rows).
template <bool Accumulate, typename T>
inline void gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t ldb,
                 T* c, int64_t ldc) {
  int64_t i = 0;
  for (; i + detail::kRows <= m; i += detail::kRows)
    detail::row_block<T, detail::kRows, Accumulate>(n, k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc);
  detail::remainder<T, detail::kRows - 1, Accumulate>(m - i, n, k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc,
                                                      ldc);
}

// dst[j * ldd + i] = src[i * lds + j] for i < m, j < n.
template <typename T>
inline void transpose(int64_t m, int64_t n, const T* src, int64_t lds, T* dst, int64_t ldd) {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < m; ++i) dst[j * ldd + i] = src[i * lds + j];
}

// Sum of x[i] * y[i], n a multiple of kLanes<T>.
template <typename T>
inline T dot(int64_t n, const T* x, const T* y) {
  Vec<T> sum{};
  for (int64_t i = 0; i < n; i += kLanes<T>) sum += vload(x + i) * vload(y + i);
  return vsum<T>(sum);
}

// y += x * scale, n a multiple of kLanes<T>.
template <typename T>
inline void axpy(int64_t n, T scale, const T* x, T* y) {
  for (int64_t i = 0; i < n; i += kLanes<T>) vstore(y + i, vload(y + i) + vload(x + i) * scale);
}

}  // namespace oryx::ops::ORYX_ISA
