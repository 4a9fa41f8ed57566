#pragma once

// Matrix products on workspaces in cache, from one register-blocked tile. Included by cpu.cpp only.
//
// Elements are float, double, or Pair: two bfloat16, neighbours along the summed dimension, whose products are exact
// and summed in float. With pairs, k counts pairs: A is a row-major bfloat16 matrix read 32 bits at a time, and B has
// the words of ops/common/pairs.h.

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include <type_traits>

#include "ops/common/amx.h"
#include "ops/common/arithmetic.h"

namespace oryx::ops::ORYX_ISA {

// The elements that products of tensors of T are taken of: pairs pay where one instruction multiplies and adds them.
#if defined(__AVX512BF16__)
template <typename T>
inline constexpr bool kPairs = std::is_same_v<T, Bf16>;
#else
template <typename T>
inline constexpr bool kPairs = false;
#endif
template <typename T>
using Element = std::conditional_t<kPairs<T>, Pair, Arithmetic<T>>;

// How the elements of a product are multiplied and added; `row` prepares a vector of B for use by many rows of A.
template <typename E>
struct Product {
  using Sum = E;
  using Row = Vec<E>;
  static Row row(Vec<E> b) { return b; }
  static void add(Vec<E>& sum, E a, const Row& b) { sum += a * b; }
};
#if defined(__AVX512BF16__)
template <>
struct Product<Pair> {
  using Sum = float;
  using Row = __m512bh;
  static Row row(Vec<Pair> b) { return reinterpret_cast<Row>(b); }
  static void add(Vec<float>& sum, Pair a, const Row& b) {
    const __m512i pairs = _mm512_set1_epi32(static_cast<int>(a));
    sum = reinterpret_cast<Vec<float>>(
        _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(pairs), b));
  }
};
#endif

// Rows of a tile of products of E.
#if defined(__AVX512F__)
template <typename E>
inline constexpr int kTileRows = kMatrixTiles&& std::is_same_v<E, Pair> ? 32 : 8;
inline constexpr int kTileVectors = 2;
#else
// Twelve sums, a row of three and a factor: all sixteen registers.
template <typename E>
inline constexpr int kTileRows = 4;
inline constexpr int kTileVectors = 3;
#endif

// Rows x Vectors sums in registers: GCC keeps them there only when all is inlined.
template <typename A, int Rows, int Vectors>
struct Tile {
  static_assert(Vectors >= 1 && Vectors <= kTileVectors);
  Vec<A> sum[Rows][Vectors];

  [[gnu::always_inline]] void zero() {
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < Vectors; ++v) sum[r][v] = Vec<A>{};
  }
  [[gnu::always_inline]] void load(const A* c, int64_t ldc) {
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < Vectors; ++v) sum[r][v] = vload(c + r * ldc + v * kLanes<A>);
  }
  // += A[Rows, k] B[k, Vectors]; element (r, p) of A is a[r * a_row + p * a_col]. With matrix tiles (ops/common/amx.h)
  // and pairs, a_col is 1, and k is rounded up to 16: both operands have zeros or, one of them, finite numbers there.
  // Only matrix tiles take operands of several parts.
  template <typename E>
  [[gnu::always_inline]] void multiply(int64_t k, const E* a, int64_t a_row, int64_t a_col, const E* b, int64_t ldb,
                                       [[maybe_unused]] Parts parts = {}) {
#if defined(__AMX_BF16__)
    if constexpr (std::is_same_v<E, Pair>) {
      static_assert(Rows == kTileRows<Pair>);
      return amx_multiply<Vectors>(k, a, a_row, b, ldb, parts, /*accumulate=*/true, reinterpret_cast<A*>(&sum[0][0]),
                                   Vectors * kLanes<A>);
    }
#endif
    for (int64_t p = 0; p < k; ++p, a += a_col, b += ldb) {
      typename Product<E>::Row row[Vectors];
      for (int v = 0; v < Vectors; ++v) row[v] = Product<E>::row(vload(b + v * kLanes<E>));
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        E x;  // pairs lie in rows of bfloat16
        std::memcpy(&x, a + r * a_row, sizeof(x));
        for (int v = 0; v < Vectors; ++v) Product<E>::add(sum[r][v], x, row[v]);
      }
    }
  }
  [[gnu::always_inline]] void store(A* c, int64_t ldc) const {
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < Vectors; ++v) vstore(c + r * ldc + v * kLanes<A>, sum[r][v]);
  }
};

// C [Rows, Vectors] = A B, or += when Accumulate: a tile that is stored at once.
template <bool Accumulate, int Rows, int Vectors, typename E>
[[gnu::always_inline]] inline void multiply_tile(int64_t k, const E* a, int64_t a_row, int64_t a_col, const E* b,
                                                 int64_t ldb, typename Product<E>::Sum* c, int64_t ldc,
                                                 Parts parts = {}) {
#if defined(__AMX_BF16__)
  if constexpr (std::is_same_v<E, Pair>) return amx_multiply<Vectors>(k, a, a_row, b, ldb, parts, Accumulate, c, ldc);
#endif
  Tile<typename Product<E>::Sum, Rows, Vectors> tile;
  if (Accumulate)
    tile.load(c, ldc);
  else
    tile.zero();
  tile.multiply(k, a, a_row, a_col, b, ldb, parts);
  tile.store(c, ldc);
}

// work.template operator()<Vectors>(j) for column panels of kTileVectors vectors, and of fewer at the end; n is a
// multiple of kLanes<A>. One vector alone, whose sums wait for each other, is left where there is no other way. Panels
// come outermost in a product: the panel of B stays in the first cache while rows of A go by.
template <typename A, typename Work>
inline void for_panels(int64_t n, Work&& work) {
  constexpr int64_t L = kLanes<A>;
  int64_t j = 0;
  if constexpr (kTileVectors == 3)
    for (; j + 3 * L <= n && n - j != 4 * L; j += 3 * L) work.template operator()<3>(j);
  for (; j + 2 * L <= n; j += 2 * L) work.template operator()<2>(j);
  for (; j < n; j += L) work.template operator()<1>(j);
}

// work.template operator()<Rows>(i) for blocks of rows: as many as stay in registers, and fewer at the end.
template <typename Work>
inline void for_rows(int64_t m, Work&& work) {
  constexpr int kRows = kTileRows<float>;
  int64_t i = 0;
  for (; i + kRows <= m; i += kRows) work.template operator()<kRows>(i);
  if (kRows > 4 && i + 4 <= m) work.template operator()<4>(i), i += 4;
  if (i + 2 <= m) work.template operator()<2>(i), i += 2;
  if (i < m) work.template operator()<1>(i);
}

// The same, or for matrix tiles whole ones: m is rounded up, and workspaces have room.
template <typename E, typename Work>
inline void for_rows_of(int64_t m, Work&& work) {
  if constexpr (kMatrixTiles && std::is_same_v<E, Pair>) {
    for (int64_t i = 0; i < m; i += kTileRows<E>) work.template operator()<kTileRows<E>>(i);
  } else {
    for_rows(m, work);
  }
}

// C[m, n] = A[m, k] B[k, n], or += when Accumulate. A transposed A costs nothing (see Tile); B and C are row-major, and
// n is a multiple of kLanes<A> (padded rows).
template <bool Accumulate, typename E>
inline void gemm(int64_t m, int64_t n, int64_t k, const E* a, int64_t a_row, int64_t a_col, const E* b, int64_t ldb,
                 typename Product<E>::Sum* c, int64_t ldc) {
  using A = typename Product<E>::Sum;
  for_panels<A>(n, [&]<int Vectors>(int64_t j) {
    for_rows_of<E>(m, [&]<int Rows>(int64_t i) {
      multiply_tile<Accumulate, Rows, Vectors>(k, a + i * a_row, a_row, a_col, b + j, ldb, c + i * ldc + j, ldc);
    });
  });
}

// Sum of x[i] * y[i], n a multiple of kLanes<T>.
template <typename T>
inline T dot(int64_t n, const T* x, const T* y) {
  Vec<T> sum{};
  for (int64_t i = 0; i < n; i += kLanes<T>) sum += vload(x + i) * vload(y + i);
  return vsum<T>(sum);
}

}  // namespace oryx::ops::ORYX_ISA
