#include "ops/rope/cpu.h"

#include "ops/common/rotation.h"

namespace oryx::ops::ORYX_ISA {

template <typename T>
void rope_rotate(const RopeArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t half = args.dim / 2, stride = padded<A>(half);  // also a multiple of the doubles' vector
  const Workspace<double> frequency(stride);
  rope_frequencies(args.dim, args.base, stride, frequency.get());
  const A sign = static_cast<A>(args.sign);
  parallel_for(args.tokens, row_grain(args.heads * args.dim), [&](int64_t begin, int64_t end) {
    const Workspace<A> sine(stride), cosine(stride);
    for (int64_t t = begin; t < end; ++t) {
      sines(static_cast<double>(args.positions[t]), frequency.get(), stride, sine.get(), cosine.get());
      for (int64_t row = t * args.heads; row < (t + 1) * args.heads; ++row)
        rotate_row(args.x + row * args.dim, half, sine.get(), cosine.get(), sign, args.y + row * args.dim);
    }
  });
}

template void rope_rotate<float>(const RopeArgs<float>&);
template void rope_rotate<double>(const RopeArgs<double>&);
template void rope_rotate<Bf16>(const RopeArgs<Bf16>&);

}  // namespace oryx::ops::ORYX_ISA
