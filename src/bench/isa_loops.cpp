// Compiled once per instruction set; ORYX_BENCH_ISA names the namespace.

#include "bench/loops.h"

namespace oryx::bench::ORYX_BENCH_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
typedef float Vec __attribute__((vector_size(kBytes), aligned(4)));
constexpr int kLanes = kBytes / 4;

float sum(Vec v) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

}  // namespace

float multiply_add(int64_t rounds, float start) {
  // Latency 4 and two units ask for at least 8; AVX2 has 16 registers.
  constexpr int kRegisters = 12;
  static_assert(kMultiplyAdds % kRegisters == 0);
  Vec acc[kRegisters];
  const Vec x = Vec{} + 0.5f * start, y = Vec{} + start;  // converges to 2 start: no overflow, no denormals
  for (int i = 0; i < kRegisters; ++i) acc[i] = Vec{} + start * static_cast<float>(i + 1);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 4
    for (int repeat = 0; repeat < kMultiplyAdds / kRegisters; ++repeat)
#pragma GCC unroll 12
      for (int i = 0; i < kRegisters; ++i) acc[i] = acc[i] * x + y;
  }
  Vec total = acc[0];
  for (int i = 1; i < kRegisters; ++i) total += acc[i];
  return sum(total);
}

float read_streams(const float* data, int64_t count) {
  constexpr int kStreams = 8;
  const int64_t stride = count / kStreams;
  Vec acc[kStreams] = {};
  for (int64_t i = 0; i + kLanes <= stride; i += kLanes) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) acc[s] += *reinterpret_cast<const Vec*>(data + s * stride + i);
  }
  Vec total = acc[0];
  for (int s = 1; s < kStreams; ++s) total += acc[s];
  return sum(total);
}

}  // namespace oryx::bench::ORYX_BENCH_ISA
