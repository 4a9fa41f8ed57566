#include "ops/gated_rms_norm/cpu.h"

#include "ops/common/groups.h"

namespace oryx::ops::ORYX_ISA {

template <typename A>
static A inverse_rms(A sum_of_squares, int64_t width, double eps) {
  return 1 / std::sqrt(sum_of_squares / static_cast<A>(width) + static_cast<A>(eps));
}

template <typename T>
void gated_rms_norm_forward(const GatedRmsNormArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t width = args.width;
  const Workspace<A> weight(round_up(width, kGroup<T>));
  place_row<T>(args.weight, width, weight.get());
  parallel_for(args.rows, row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T *x = args.x + row * width, *gate = args.gate + row * width;
      T* y = args.y + row * width;
      Group<T> squares{};
      for_groups<T>(width, [&](int64_t i, auto size) {
        prefetch(x + i), prefetch(gate + i);
        const Group<T> v = read(x + i, size);
        squares += v * v;
      });
      const A r = inverse_rms(group_sum<T>(squares), width, args.eps);
      for_groups<T>(width, [&](int64_t i, auto size) {
        const Group<T> g = read(gate + i, size);
        write(y + i, read(x + i, size) * r * read_placed<T>(weight.get() + i) * (g * sigmoid(g)), size);
      });
    }
  });
}

// With r = 1 / sqrt(mean(x^2) + eps) and h = grad_y * weight * silu(gate):
//     grad_x = r h - x r^3 (x . h) / width,   grad_gate = r x * grad_y * weight * silu'(gate),
//     grad_weight = sum over rows of r x * grad_y * silu(gate).
// The first sweep over a row takes every exp and keeps what the second scales by r.
template <typename T>
static void backward_rows(const GatedRmsNormArgs<T>& args, int64_t begin, int64_t end, const Arithmetic<T>* weight,
                          Arithmetic<T>* sums) {
  using A = Arithmetic<T>;
  const int64_t width = args.width, stride = round_up(width, kGroup<T>);
  const Workspace<A> space(3 * stride);
  A *h = space.get(), *for_gate = h + stride, *for_weight = for_gate + stride;
  for (int64_t row = begin; row < end; ++row) {
    const T *x = args.x + row * width, *gate = args.gate + row * width, *grad_y = args.grad_y + row * width;
    Group<T> squares{}, products{};
    for_groups<T>(width, [&](int64_t i, auto size) {
      prefetch(x + i), prefetch(gate + i), prefetch(grad_y + i);
      const Group<T> v = read(x + i, size), g = read(gate + i, size), w = read_placed<T>(weight + i);
      const Group<T> s = sigmoid(g), dy = read(grad_y + i, size);
      const Group<T> unweighted = dy * g * s, weighted = unweighted * w;
      squares += v * v;
      products += v * weighted;
      write_placed<T>(h + i, weighted);
      write_placed<T>(for_gate + i, v * dy * w * silu_slope(g, s));
      write_placed<T>(for_weight + i, v * unweighted);
    });
    const A r = inverse_rms(group_sum<T>(squares), width, args.eps);
    if (args.grad_x) {
      T* grad_x = args.grad_x + row * width;
      const A along = group_sum<T>(products) / static_cast<A>(width) * r * r * r;
      for_groups<T>(width, [&](int64_t i, auto size) {
        write(grad_x + i, read_placed<T>(h + i) * r - read(x + i, size) * along, size);
      });
    }
    if (args.grad_gate) {
      T* grad_gate = args.grad_gate + row * width;
      for_groups<T>(width, [&](int64_t i, auto size) { write(grad_gate + i, read_placed<T>(for_gate + i) * r, size); });
    }
    if (sums) {
      for_groups<T>(width, [&](int64_t i, auto) {
        write_placed<T>(sums + i, read_placed<T>(sums + i) + read_placed<T>(for_weight + i) * r);
      });
    }
  }
}

template <typename T>
void gated_rms_norm_backward(const GatedRmsNormArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t stride = round_up(args.width, kGroup<T>);
  const Workspace<A> weight(stride), sum(stride);
  place_row<T>(args.weight, args.width, weight.get());
  sum_over_rows(args.rows, stride, A(1), args.grad_weight ? sum.get() : nullptr,
                [&](int64_t begin, int64_t end, A* sums) { backward_rows(args, begin, end, weight.get(), sums); });
  if (!args.grad_weight) return;
  for (int64_t i = 0; i < args.width; ++i) args.grad_weight[i] = sum.get()[place<T>(i)];
}

#define ORYX_INSTANTIATE(T)                                            \
  template void gated_rms_norm_forward<T>(const GatedRmsNormArgs<T>&); \
  template void gated_rms_norm_backward<T>(const GatedRmsNormArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)
#undef ORYX_INSTANTIATE

}  // namespace oryx::ops::ORYX_ISA
