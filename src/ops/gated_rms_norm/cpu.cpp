#include "ops/gated_rms_norm/cpu.h"

#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

template <typename A>
static A inverse_rms(A sum_of_squares, int64_t width, double eps) {
  return 1 / std::sqrt(sum_of_squares / static_cast<A>(width) + static_cast<A>(eps));
}

template <typename T>
void gated_rms_norm_forward(const GatedRmsNormArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t width = args.width;
  parallel_for(args.rows, row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T *x = args.x + row * width, *gate = args.gate + row * width;
      T* y = args.y + row * width;
      Vec<A> squares{};
      for_vectors<A>(width, [&](int64_t i, auto size) {
        const Vec<A> v = get(x + i, size);
        squares += v * v;
      });
      const A r = inverse_rms(vsum<A>(squares), width, args.eps);
      for_vectors<A>(width, [&](int64_t i, auto size) {
        const Vec<A> g = get(gate + i, size);
        put(y + i, get(x + i, size) * r * get(args.weight + i, size) * (g * sigmoid(g)), size);
      });
    }
  });
}

// With r = 1 / sqrt(mean(x^2) + eps) and h = grad_y * weight * silu(gate):
//     grad_x = r h - x r^3 (x . h) / width,   grad_gate = r x * grad_y * weight * silu'(gate),
//     grad_weight = sum over rows of r x * grad_y * silu(gate).
// The first sweep over a row takes every exp and keeps what the second scales by r.
template <typename T>
static void backward_rows(const GatedRmsNormArgs<T>& args, int64_t begin, int64_t end, Arithmetic<T>* sums) {
  using A = Arithmetic<T>;
  const int64_t width = args.width, stride = padded<A>(width);
  const Workspace<A> space(3 * stride);
  A *h = space.get(), *for_gate = h + stride, *for_weight = for_gate + stride;
  for (int64_t row = begin; row < end; ++row) {
    const T *x = args.x + row * width, *gate = args.gate + row * width, *grad_y = args.grad_y + row * width;
    Vec<A> squares{}, products{};
    for_vectors<A>(width, [&](int64_t i, auto size) {
      const Vec<A> v = get(x + i, size), g = get(gate + i, size), w = get(args.weight + i, size);
      const Vec<A> s = sigmoid(g), dy = get(grad_y + i, size);
      const Vec<A> unweighted = dy * g * s, weighted = unweighted * w;
      squares += v * v;
      products += v * weighted;
      vstore(h + i, weighted);
      vstore(for_gate + i, v * dy * w * silu_slope(g, s));
      vstore(for_weight + i, v * unweighted);
    });
    const A r = inverse_rms(vsum<A>(squares), width, args.eps);
    if (args.grad_x) {
      T* grad_x = args.grad_x + row * width;
      const A along = vsum<A>(products) / static_cast<A>(width) * r * r * r;
      for_vectors<A>(width,
                     [&](int64_t i, auto size) { put(grad_x + i, vload(h + i) * r - get(x + i, size) * along, size); });
    }
    if (args.grad_gate) {
      T* grad_gate = args.grad_gate + row * width;
      for_vectors<A>(width, [&](int64_t i, auto size) { put(grad_gate + i, vload(for_gate + i) * r, size); });
    }
    if (sums) {
      for_vectors<A>(width, [&](int64_t i, auto) { vstore(sums + i, vload(sums + i) + vload(for_weight + i) * r); });
    }
  }
}

template <typename T>
void gated_rms_norm_backward(const GatedRmsNormArgs<T>& args) {
  using A = Arithmetic<T>;
  sum_over_rows(args.rows, args.width, A(1), args.grad_weight,
                [&](int64_t begin, int64_t end, A* sums) { backward_rows(args, begin, end, sums); });
}

#define ORYX_INSTANTIATE(T)                                            \
  template void gated_rms_norm_forward<T>(const GatedRmsNormArgs<T>&); \
  template void gated_rms_norm_backward<T>(const GatedRmsNormArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)
#undef ORYX_INSTANTIATE

}  // namespace oryx::ops::ORYX_ISA
