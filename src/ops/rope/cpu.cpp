#include "ops/rope/cpu.h"

#include "ops/common/groups.h"
#include "ops/common/rotation.h"

namespace oryx::ops::ORYX_ISA {

template <typename T>
void rope_rotate(const RopeArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t half = args.dim / 2, stride = round_up(half, kGroup<T>);  // also a multiple of the doubles' vector
  const Workspace<double> frequency(stride);
  fill_zero(frequency.get(), stride);
  for (int64_t j = 0; j < half; ++j) frequency.get()[place<T>(j)] = rope_frequency(j, args.dim, args.base);
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
