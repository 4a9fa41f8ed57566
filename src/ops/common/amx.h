#pragma once

// Matrix tiles of Intel's processors (AMX): 16 x 16 sums of products of bfloat16 pairs. Included by cpu.cpp only.

#include "ops/common/vec.h"

namespace oryx::ops::ORYX_ISA {

using Pair = uint32_t;  // two bfloat16, the earlier in the low half

// A float operand can be the sum of several matrices of pairs: products of `count` of them are added, the left ones a
// elements apart and the right ones b.
struct Parts {
  int count = 1;
  int64_t a = 0, b = 0;
};

#if defined(__AMX_BF16__)
inline constexpr bool kMatrixTiles = true;

// Tiles of 16 rows of 64 bytes, on this thread for as long as it lives. Libraries shape the tiles for themselves, so
// each piece of work begins with its own; the system's permission was asked for in ops/common/isa.cpp.
class MatrixTiles {
 public:
  MatrixTiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int i = 0; i < 8; ++i) shape.bytes[i] = 64, shape.rows[i] = 16;
    asm volatile("" ::: "memory");
    _tile_loadconfig(&shape);
  }
  MatrixTiles(const MatrixTiles&) = delete;
  MatrixTiles& operator=(const MatrixTiles&) = delete;
  ~MatrixTiles() { _tile_release(); }
};

// C [32, Vectors] = A [32, k] B [k, Vectors], or C += when `accumulate`, k rounded up to 16, and the same of the
// operands' other parts. Four sums, since each product would wait for the one before it. GCC's tile loads do not say
// that they read memory.
template <int Vectors>
[[gnu::always_inline]] inline void amx_multiply(int64_t k, const Pair* a, int64_t lda, const Pair* b, int64_t ldb,
                                                Parts parts, bool accumulate, float* c, int64_t ldc) {
  asm volatile("" ::: "memory");
  if (accumulate) {
    _tile_loadd(0, c, ldc * 4);
    _tile_loadd(1, c + 16 * ldc, ldc * 4);
    if constexpr (Vectors == 2) {
      _tile_loadd(2, c + 16, ldc * 4);
      _tile_loadd(3, c + 16 * ldc + 16, ldc * 4);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (Vectors == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (int part = 0; part < parts.count; ++part, a += parts.a, b += parts.b)
    for (int64_t p = 0; p < k; p += 16) {
      _tile_loadd(4, a + p, lda * 4);
      _tile_loadd(6, b + p * ldb, ldb * 4);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a + 16 * lda + p, lda * 4);
      _tile_dpbf16ps(1, 5, 6);
      if constexpr (Vectors == 2) {
        _tile_loadd(7, b + p * ldb + 16, ldb * 4);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  _tile_stored(0, c, ldc * 4);
  _tile_stored(1, c + 16 * ldc, ldc * 4);
  if constexpr (Vectors == 2) {
    _tile_stored(2, c + 16, ldc * 4);
    _tile_stored(3, c + 16 * ldc + 16, ldc * 4);
  }
  asm volatile("" ::: "memory");
}
#else
inline constexpr bool kMatrixTiles = false;
class MatrixTiles {};
#endif

}  // namespace oryx::ops::ORYX_ISA
