#include <immintrin.h>

#include "bench/loops.h"

namespace oryx::bench {

float dot_bf16(int64_t rounds, float start) {
  constexpr int kRegisters = 16;  // latency 6, two units on some processors
  static_assert(kDotProducts % kRegisters == 0);
  const __m512 small = _mm512_set1_ps(start * 1e-2f);
  const __m512bh x = _mm512_cvtne2ps_pbh(small, small), y = x;
  __m512 acc[kRegisters];
  for (int i = 0; i < kRegisters; ++i) acc[i] = _mm512_set1_ps(start * static_cast<float>(i + 1));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 4
    for (int repeat = 0; repeat < kDotProducts / kRegisters; ++repeat)
#pragma GCC unroll 16
      for (int i = 0; i < kRegisters; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], x, y);
  }
  __m512 total = acc[0];
  for (int i = 1; i < kRegisters; ++i) total = _mm512_add_ps(total, acc[i]);
  float sum = 0;
  for (int i = 0; i < 16; ++i) sum += total[i];
  return sum;
}

}  // namespace oryx::bench
