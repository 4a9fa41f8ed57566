#include "ops/rms_norm/cpu.h"

#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

// weight * scale, so that the loops over rows multiply once.
template <typename In, typename Out, typename A = Arithmetic<In>>
static void scaled_weight(const RmsNormArgs<In, Out>& args, A* scaled) {
  const A scale = static_cast<A>(args.scale);
  for (int64_t i = 0; i < args.width; ++i) scaled[i] = args.weight ? args.weight[i] * scale : scale;
}

template <typename A>
static A inverse_rms(A sum_of_squares, int64_t width, double eps) {
  return 1 / std::sqrt(sum_of_squares / static_cast<A>(width) + static_cast<A>(eps));
}

template <typename In>
static Arithmetic<In> weight_of_head(const HeadWeights<In>& heads, int64_t row) {
  return heads.weight ? heads.weight[row % heads.count] : 1;
}

template <typename In, typename Out>
void rms_norm_forward(const RmsNormArgs<In, Out>& args, const HeadWeights<In>& heads) {
  using A = Arithmetic<In>;
  const int64_t width = args.width;
  const Workspace<A> weight(width);
  scaled_weight(args, weight.get());
  parallel_for(args.rows, row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const In* x = args.x + row * width;
      Out* y = args.y + row * width;
      Vec<A> squares{};
      if (args.add) {
        const Out* add = args.add + row * width;
        In* sum = args.sum + row * width;
        for_vectors<A>(width, [&](int64_t i, auto size) {
          put(sum + i, Vec<A>(get(x + i, size) + get(add + i, size)), size);
          const Vec<A> v = get(sum + i, size);
          squares += v * v;
        });
        x = sum;
      } else {
        for_vectors<A>(width, [&](int64_t i, auto size) {
          const Vec<A> v = get(x + i, size);
          squares += v * v;
        });
      }
      const A r = inverse_rms(vsum<A>(squares), width, args.eps) * weight_of_head(heads, row);
      for_vectors<A>(
          width, [&](int64_t i, auto size) { put(y + i, get(x + i, size) * r * get(weight.get() + i, size), size); });
    }
  });
}

// With r = 1 / sqrt(mean(x^2) + eps) and h = grad_y * weight * head_weight * scale:
//     grad_x = r h - x r^3 (x . h) / width,   grad_weight = scale * sum over rows of grad_y * x * r,
//     grad_head_weight = scale * sum over its rows of (grad_y . x) r.
// Only one of the weights is there.
template <typename In, typename Out>
void rms_norm_backward(const RmsNormArgs<In, Out>& args, const HeadWeights<In>& heads) {
  using A = Arithmetic<In>;
  const int64_t width = args.width;
  const Workspace<A> weight(width);
  scaled_weight(args, weight.get());
  const bool by_head = heads.grad != nullptr;
  sum_over_rows(args.rows, by_head ? heads.count : width, by_head ? A(1) : static_cast<A>(args.scale),
                by_head ? heads.grad : args.grad_weight, [&](int64_t begin, int64_t end, A* sums) {
                  for (int64_t row = begin; row < end; ++row) {
                    const In* x = args.x + row * width;
                    const Out* grad_y = args.grad_y + row * width;
                    Vec<A> squares{}, products{};
                    for_vectors<A>(width, [&](int64_t i, auto size) {
                      const Vec<A> v = get(x + i, size);
                      squares += v * v;
                      products += v * get(grad_y + i, size) * get(weight.get() + i, size);
                    });
                    const A r = inverse_rms(vsum<A>(squares), width, args.eps), of_head = weight_of_head(heads, row);
                    const A product = vsum<A>(products);  // x . h without the head's weight
                    if (args.grad_x) {
                      const int64_t first = row * width;
                      const A along = product * of_head / static_cast<A>(width) * r * r * r, factor = of_head * r;
                      for_vectors<A>(width, [&](int64_t i, auto size) {
                        const Vec<A> h = get(grad_y + i, size) * get(weight.get() + i, size);
                        Vec<A> grad = h * factor - get(x + i, size) * along;
                        if (args.grad_sum) grad += get(args.grad_sum + first + i, size);
                        put(args.grad_x + first + i, grad, size);
                        if (args.grad_add) put(args.grad_add + first + i, grad, size);
                      });
                    }
                    if (sums && by_head) {
                      sums[row % heads.count] += product * r;
                    } else if (sums) {
                      for_vectors<A>(width, [&](int64_t i, auto size) {
                        put(sums + i, get(sums + i, size) + get(grad_y + i, size) * get(x + i, size) * r, size);
                      });
                    }
                  }
                });
}

#define ORYX_INSTANTIATE(In, Out)                                                               \
  template void rms_norm_forward<In, Out>(const RmsNormArgs<In, Out>&, const HeadWeights<In>&); \
  template void rms_norm_backward<In, Out>(const RmsNormArgs<In, Out>&, const HeadWeights<In>&);
ORYX_INSTANTIATE(float, float)
ORYX_INSTANTIATE(float, Bf16)
ORYX_INSTANTIATE(Bf16, float)
ORYX_INSTANTIATE(Bf16, Bf16)
ORYX_INSTANTIATE(double, double)
#undef ORYX_INSTANTIATE

}  // namespace oryx::ops::ORYX_ISA
