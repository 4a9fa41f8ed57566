#pragma once

#include <cstdint>
#include <cstring>

namespace oryx::ops {

// bfloat16 in memory; layout-compatible with c10::BFloat16, whose header kernels do without.
struct Bf16 {
  uint16_t bits;
};

[[gnu::always_inline]] inline float to_float(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

// Round to nearest even; NaN stays NaN.
[[gnu::always_inline]] inline Bf16 to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<uint16_t>(x != x ? (bits >> 16) | 0x40u : rounded)};
}

// Elements as read and written by kernels that compute in `A`.
template <typename A>
[[gnu::always_inline]] inline A load(const A* x) {
  return *x;
}
template <typename A>
[[gnu::always_inline]] inline A load(const Bf16* x) {
  return to_float(*x);
}
[[gnu::always_inline]] inline void store(float* to, float x) {
  *to = x;
}
[[gnu::always_inline]] inline void store(double* to, double x) {
  *to = x;
}
[[gnu::always_inline]] inline void store(Bf16* to, float x) {
  *to = to_bf16(x);
}

}  // namespace oryx::ops
