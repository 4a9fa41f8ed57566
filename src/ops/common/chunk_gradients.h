#pragma once

// Parts of ops/common/chunk_scan_backward.h that know nothing of where its operands lie. Included by it only.

#include "ops/common/chunk_scan.h"

namespace oryx::ops::ORYX_ISA {

// Solves (I - M)^T X = Y in place, M strictly lower with zeros in rows from n to the end of the last tile.
template <typename A>
inline void solve_lower_transposed(int64_t n, int64_t width, int64_t ldx, const A* M, A* X) {
  constexpr int kRows = kTileRows<A>;
  for_panels<A>(width, [&]<int Vectors>(int64_t j) {
    for (int64_t i = round_up(n, kRows) - kRows; i >= 0; i -= kRows) {
      const int64_t next = std::min(i + kRows, n);
      Tile<A, kRows, Vectors> tile;
      tile.load(X + i * ldx + j, ldx);
      tile.multiply(n - next, M + next * C + i, 1, C, X + next * ldx + j, ldx);
      for (int r = kRows - 2; r >= 0; --r)
        for (int p = r + 1; p < kRows; ++p)
          for (int v = 0; v < Vectors; ++v) tile.sum[r][v] += M[(i + p) * C + i + r] * tile.sum[p][v];
      tile.store(X + i * ldx + j, ldx);
    }
  });
}

// Products of rows in double, as many at a time as a register holds.
template <typename A>
struct InDouble {
  static constexpr int64_t kCount = kLanes<double>;
  typedef A type __attribute__((vector_size(kCount * sizeof(A))));
  typedef double wide __attribute__((vector_size(kCount * sizeof(double))));
  static wide product(const A* x, const A* y) {
    type a, b;
    std::memcpy(&a, x, sizeof(a));
    std::memcpy(&b, y, sizeof(b));
    return __builtin_convertvector(a, wide) * __builtin_convertvector(b, wide);
  }
};

// For j < limit, m_j = D_ij x . k_j and dm_j its gradient: takes from dG_j what they do, and returns what they give
// dG_i.
template <typename A>
inline double spread_decay_gradient(int64_t limit, const A* m, const A* dm, double* dG) {
  using Wide = typename InDouble<A>::wide;
  constexpr int64_t kCount = InDouble<A>::kCount;
  Wide sum{};
  const auto give = [&](double* to, Wide share) {
    Wide rest;
    std::memcpy(&rest, to, sizeof(rest));
    rest -= share;
    std::memcpy(to, &rest, sizeof(rest));
    sum += share;
  };
  int64_t j = 0;
  for (; j + kCount <= limit; j += kCount) give(dG + j, InDouble<A>::product(m + j, dm + j));
  if (j < limit) {
    Wide share = InDouble<A>::product(m + j, dm + j);
    for (int64_t l = 0; l < kCount; ++l) share[l] = j + l < limit ? share[l] : 0;
    give(dG + j, share);
  }
  double total = 0;
  for (int64_t l = 0; l < kCount; ++l) total += sum[l];
  return total;
}

template <typename A>
inline void scale_row(int64_t n, const A* by, A* x) {
  for (int64_t j = 0; j < n; j += kLanes<A>) vstore(x + j, vload(x + j) * vload(by + j));
}

}  // namespace oryx::ops::ORYX_ISA
