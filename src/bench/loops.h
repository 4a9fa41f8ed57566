#pragma once

// Loops that run into one limit of the processor. isa_loops.cpp is compiled once per instruction set, dot_bf16.cpp for
// AVX-512-BF16 alone; they include nothing with inline functions, which the linker might pick for every processor.

#include <cstdint>

namespace oryx::bench {

// Both return something that depends on all of the work, so that none is left out.
using ArithmeticLoop = float (*)(int64_t rounds, float start);
using ReadLoop = float (*)(const float* data, int64_t count);

// float32 multiply-adds on independent registers: kMultiplyAdds vectors in each round.
inline constexpr int64_t kMultiplyAdds = 48;
// bfloat16 dot products (vdpbf16ps, 32 multiply-adds each): kDotProducts vectors in each round.
inline constexpr int64_t kDotProducts = 64;

#if defined(__x86_64__)
namespace avx2 {
float multiply_add(int64_t rounds, float start);
float read_streams(const float* data, int64_t count);
}  // namespace avx2
namespace avx512 {
float multiply_add(int64_t rounds, float start);
float read_streams(const float* data, int64_t count);
}  // namespace avx512
float dot_bf16(int64_t rounds, float start);
#else
namespace generic {
float multiply_add(int64_t rounds, float start);
float read_streams(const float* data, int64_t count);
}  // namespace generic
#endif

// The best of this processor, whatever ORYX_ISA says of the kernels.
struct Loops {
  const char* isa;
  int64_t lanes;  // floats of a vector
  ArithmeticLoop multiply_add;
  ReadLoop read_streams;    // sums `count` floats, several streams at once; count a multiple of 8 * 64
  ArithmeticLoop dot_bf16;  // null where the processor has no such instruction
};
Loops best_loops();

}  // namespace oryx::bench
