#include "ops/rope/cpu.h"

#include "ops/common/groups.h"

namespace oryx::ops::ORYX_ISA {

// sine[j], cosine[j] of the double position * frequency[j], within 1e-10, which is more than float32 results need:
// reduced to [-pi/4, pi/4] in double (pi/2 in two parts), then Taylor polynomials.
static void sines(double position, const double* frequency, int64_t padded_half, float* sine, float* cosine) {
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
      sine[j + lane] = static_cast<float>(signed_sin[lane]);
      cosine[j + lane] = static_cast<float>(signed_cos[lane]);
    }
  }
}
static void sines(double position, const double* frequency, int64_t padded_half, double* sine, double* cosine) {
  for (int64_t j = 0; j < padded_half; ++j) {
    sine[j] = std::sin(position * frequency[j]);
    cosine[j] = std::cos(position * frequency[j]);
  }
}

template <typename T>
void rope_rotate(const RopeArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t half = args.dim / 2, stride = round_up(half, kGroup<T>);  // also a multiple of the doubles' vector
  const Workspace<double> frequency(stride);
  fill_zero(frequency.get(), stride);
  for (int64_t j = 0; j < half; ++j)
    frequency.get()[place<T>(j)] = std::pow(args.base, -2.0 * static_cast<double>(j) / static_cast<double>(args.dim));
  const A sign = static_cast<A>(args.sign);
  parallel_for(args.tokens, row_grain(args.heads * args.dim), [&](int64_t begin, int64_t end) {
    const Workspace<A> sine(stride), cosine(stride);
    for (int64_t t = begin; t < end; ++t) {
      sines(static_cast<double>(args.positions[t]), frequency.get(), stride, sine.get(), cosine.get());
      for (int64_t row = t * args.heads; row < (t + 1) * args.heads; ++row) {
        const T* x = args.x + row * args.dim;
        T* y = args.y + row * args.dim;
        for_groups<T>(half, [&](int64_t j, auto size) {
          prefetch(x + j), prefetch(x + half + j);
          const Group<T> first = read(x + j, size), second = read(x + half + j, size);
          const Group<T> c = read_placed<T>(cosine.get() + j), s = read_placed<T>(sine.get() + j) * sign;
          write(y + j, first * c - second * s, size);
          write(y + half + j, second * c + first * s, size);
        });
      }
    }
  });
}

template void rope_rotate<float>(const RopeArgs<float>&);
template void rope_rotate<double>(const RopeArgs<double>&);
template void rope_rotate<Bf16>(const RopeArgs<Bf16>&);

}  // namespace oryx::ops::ORYX_ISA
