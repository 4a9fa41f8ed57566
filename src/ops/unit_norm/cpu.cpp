#include "ops/unit_norm/cpu.h"

#include "ops/common/groups.h"

namespace oryx::ops::ORYX_ISA {

template <bool Silu, typename T>
static void forward_rows(const UnitNormArgs<T>& args, int64_t begin, int64_t end) {
  using A = Arithmetic<T>;
  const int64_t width = args.width;
  const Workspace<A> active(Silu ? round_up(width, kGroup<T>) : 0);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = args.x + row * width;
    T* y = args.y + row * width;
    Group<T> squares{};
    for_groups<T>(width, [&](int64_t i, auto size) {
      prefetch(x + i);
      Group<T> a = read(x + i, size);
      if constexpr (Silu) {
        a *= sigmoid(a);
        write_placed<T>(active.get() + i, a);
      }
      squares += a * a;
    });
    const A r = static_cast<A>(args.scale) / std::sqrt(group_sum<T>(squares) + static_cast<A>(args.eps));
    for_groups<T>(width, [&](int64_t i, auto size) {
      if constexpr (Silu)
        write(y + i, read_placed<T>(active.get() + i) * r, size);
      else
        write(y + i, read(x + i, size) * r, size);
    });
  }
}

// With r = 1 / sqrt(sum(a^2) + eps): grad_a = scale (r grad_y - a r^3 (a . grad_y)), and grad_x = grad_a da/dx.
template <bool Silu, typename T>
static void backward_rows(const UnitNormArgs<T>& args, int64_t begin, int64_t end) {
  using A = Arithmetic<T>;
  const int64_t width = args.width;
  const Workspace<A> active(Silu ? round_up(width, kGroup<T>) : 0), slope(Silu ? round_up(width, kGroup<T>) : 0);
  for (int64_t row = begin; row < end; ++row) {
    const T *x = args.x + row * width, *grad_y = args.grad_y + row * width;
    T* grad_x = args.grad_x + row * width;
    Group<T> squares{}, products{};
    for_groups<T>(width, [&](int64_t i, auto size) {
      prefetch(x + i), prefetch(grad_y + i);
      Group<T> a = read(x + i, size);
      if constexpr (Silu) {
        const Group<T> s = sigmoid(a);
        write_placed<T>(slope.get() + i, silu_slope(a, s));
        a *= s;
        write_placed<T>(active.get() + i, a);
      }
      squares += a * a;
      products += a * read(grad_y + i, size);
    });
    const A r = 1 / std::sqrt(group_sum<T>(squares) + static_cast<A>(args.eps));
    const A across = static_cast<A>(args.scale) * r, along = across * r * r * group_sum<T>(products);
    for_groups<T>(width, [&](int64_t i, auto size) {
      const Group<T> g = read(grad_y + i, size) * across;
      if constexpr (Silu)
        write(grad_x + i, (g - read_placed<T>(active.get() + i) * along) * read_placed<T>(slope.get() + i), size);
      else
        write(grad_x + i, g - read(x + i, size) * along, size);
    });
  }
}

template <typename T>
void unit_norm_forward(const UnitNormArgs<T>& args) {
  parallel_for(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    args.silu ? forward_rows<true>(args, begin, end) : forward_rows<false>(args, begin, end);
  });
}

template <typename T>
void unit_norm_backward(const UnitNormArgs<T>& args) {
  parallel_for(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    args.silu ? backward_rows<true>(args, begin, end) : backward_rows<false>(args, begin, end);
  });
}

#define ORYX_INSTANTIATE(T)                                   \
  template void unit_norm_forward<T>(const UnitNormArgs<T>&); \
  template void unit_norm_backward<T>(const UnitNormArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)
#undef ORYX_INSTANTIATE

}  // namespace oryx::ops::ORYX_ISA
