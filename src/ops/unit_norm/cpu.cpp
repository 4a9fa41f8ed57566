#include "ops/unit_norm/cpu.h"

#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

template <bool Silu, typename T>
static void forward_rows(const UnitNormArgs<T>& args, int64_t begin, int64_t end) {
  using A = Arithmetic<T>;
  const int64_t width = args.width;
  const Workspace<A> active(Silu ? width : 0);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = args.x + row * width;
    T* y = args.y + row * width;
    Vec<A> squares{};
    for_vectors<A>(width, [&](int64_t i, auto size) {
      Vec<A> a = get(x + i, size);
      if constexpr (Silu) {
        a *= sigmoid(a);
        put(active.get() + i, a, size);
      }
      squares += a * a;
    });
    const A r = static_cast<A>(args.scale) / std::sqrt(vsum<A>(squares) + static_cast<A>(args.eps));
    for_vectors<A>(width, [&](int64_t i, auto size) {
      if constexpr (Silu)
        put(y + i, get(active.get() + i, size) * r, size);
      else
        put(y + i, get(x + i, size) * r, size);
    });
  }
}

// With r = 1 / sqrt(sum(a^2) + eps): grad_a = scale (r grad_y - a r^3 (a . grad_y)), and grad_x = grad_a da/dx.
template <bool Silu, typename T>
static void backward_rows(const UnitNormArgs<T>& args, int64_t begin, int64_t end) {
  using A = Arithmetic<T>;
  const int64_t width = args.width;
  const Workspace<A> active(Silu ? width : 0), slope(Silu ? width : 0);
  for (int64_t row = begin; row < end; ++row) {
    const T *x = args.x + row * width, *grad_y = args.grad_y + row * width;
    T* grad_x = args.grad_x + row * width;
    Vec<A> squares{}, products{};
    for_vectors<A>(width, [&](int64_t i, auto size) {
      Vec<A> a = get(x + i, size);
      if constexpr (Silu) {
        const Vec<A> s = sigmoid(a);
        put(slope.get() + i, silu_slope(a, s), size);
        a *= s;
        put(active.get() + i, a, size);
      }
      squares += a * a;
      products += a * get(grad_y + i, size);
    });
    const A r = 1 / std::sqrt(vsum<A>(squares) + static_cast<A>(args.eps));
    const A across = static_cast<A>(args.scale) * r, along = across * r * r * vsum<A>(products);
    for_vectors<A>(width, [&](int64_t i, auto size) {
      const Vec<A> g = get(grad_y + i, size) * across;
      if constexpr (Silu)
        put(grad_x + i, (g - get(active.get() + i, size) * along) * get(slope.get() + i, size), size);
      else
        put(grad_x + i, g - get(x + i, size) * along, size);
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
