#pragma once

// Sines and cosines of rotary position embedding. Included by cpu.cpp only.

#include <cmath>

#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

// The angle by which one position turns pair j of `dim` / 2.
inline double rope_frequency(int64_t j, int64_t dim, double base) {
  return std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(dim));
}

// sine[j], cosine[j] of the double position * frequency[j], within 1e-10, which is more than float32 results need:
// reduced to [-pi/4, pi/4] in double (pi/2 in two parts), then Taylor polynomials. Out is float or double.
template <typename Out>
inline void fast_sines(double position, const double* frequency, int64_t padded_half, Out* sine, Out* cosine) {
  using V = Vec<double>;
  using Mask = VecType<double>::mask;
  const V magic = splat(6755399441055744.0);  // 1.5 * 2^52: adding it rounds to an integer
  for (int64_t j = 0; j < padded_half; j += kLanes<double>) {
    const V angle = vload(frequency + j) * position;
    const V shifted = angle * 0.63661977236758134308 + magic, turns = shifted - magic;
    const V r = (angle - turns * 1.57079632673412561417) - turns * 6.07710050650619224932e-11;
    const V r2 = r * r;
    V s = r2 * (-1.0 / 39916800) + 1.0 / 362880;
    s = s * r2 - 1.0 / 5040;
    s = s * r2 + 1.0 / 120;
    s = s * r2 - 1.0 / 6;
    s = s * r2 * r + r;
    V c = r2 * (1.0 / 479001600) - 1.0 / 3628800;
    c = c * r2 + 1.0 / 40320;
    c = c * r2 - 1.0 / 720;
    c = c * r2 + 1.0 / 24;
    c = c * r2 - 0.5;
    c = c * r2 + 1.0;
    // The low bits of `shifted` are the number of quarter turns.
    Mask quarter;
    std::memcpy(&quarter, &shifted, sizeof(quarter));
    const Mask odd = (quarter & 1) != 0, second = (quarter & 2) != 0, between = ((quarter + 1) & 2) != 0;
    const V sin = odd ? c : s, cos = odd ? s : c;
    const V signed_sin = second ? -sin : sin, signed_cos = between ? -cos : cos;
    for (int lane = 0; lane < kLanes<double>; ++lane) {
      sine[j + lane] = static_cast<Out>(signed_sin[lane]);
      cosine[j + lane] = static_cast<Out>(signed_cos[lane]);
    }
  }
}

// In the precision of the type of arithmetic.
inline void sines(double position, const double* frequency, int64_t padded_half, float* sine, float* cosine) {
  fast_sines(position, frequency, padded_half, sine, cosine);
}
inline void sines(double position, const double* frequency, int64_t padded_half, double* sine, double* cosine) {
  for (int64_t j = 0; j < padded_half; ++j) {
    sine[j] = std::sin(position * frequency[j]);
    cosine[j] = std::cos(position * frequency[j]);
  }
}

// y [dim] = x rotated; sine and cosine hold dim / 2. x and y may be of different types.
template <typename A, typename X, typename Y>
inline void rotate_row(const X* x, int64_t half, const A* sine, const A* cosine, Y* y) {
  for_vectors<A>(half, [&](int64_t j, auto size) {
    const Vec<A> first = get(x + j, size), second = get(x + half + j, size);
    const Vec<A> c = vload(cosine + j), s = vload(sine + j);
    put(y + j, first * c - second * s, size);
    put(y + half + j, second * c + first * s, size);
  });
}

// The rotations of positions that follow each other: sin and cos of a sum, from those of a multiple of kSteps and of
// what is left, in double.
template <typename A>
class Rotations {
  static constexpr int64_t kSteps = 16;

 public:
  static constexpr int kSlots = 4;  // positions that are held at once

  Rotations(int64_t dim, double base)
      : stride_(padded<A>(dim / 2)),
        frequency_(stride_),
        table_(2 * (kSteps + 1) * stride_),
        current_(2 * kSlots * stride_) {
    fill_zero(frequency_.get(), stride_);
    for (int64_t j = 0; j < dim / 2; ++j) frequency_.get()[j] = rope_frequency(j, dim, base);
    for (int64_t i = 0; i < kSteps; ++i)
      fast_sines(static_cast<double>(i), frequency_.get(), stride_, step(i), step(i) + stride_);
  }

  void go_to(int64_t position, int slot = 0) {
    A *sine = current_.get() + 2 * slot * stride_, *cosine = sine + stride_;
    if constexpr (std::is_same_v<A, double>) {
      sines(static_cast<double>(position), frequency_.get(), stride_, sine, cosine);
    } else {
      double* origin = step(kSteps);
      if (position / kSteps != origin_) {
        origin_ = position / kSteps;
        fast_sines(static_cast<double>(origin_ * kSteps), frequency_.get(), stride_, origin, origin + stride_);
      }
      const double *a = origin, *b = step(position % kSteps);
      for (int64_t j = 0; j < stride_; ++j) {
        sine[j] = static_cast<A>(a[j] * b[stride_ + j] + a[stride_ + j] * b[j]);
        cosine[j] = static_cast<A>(a[stride_ + j] * b[stride_ + j] - a[j] * b[j]);
      }
    }
  }
  const A* sine(int slot = 0) const { return current_.get() + 2 * slot * stride_; }
  const A* cosine(int slot = 0) const { return sine(slot) + stride_; }

 private:
  double* step(int64_t i) { return table_.get() + 2 * i * stride_; }

  const int64_t stride_;
  const Workspace<double> frequency_, table_;
  const Workspace<A> current_;
  int64_t origin_ = -1;
};

}  // namespace oryx::ops::ORYX_ISA
