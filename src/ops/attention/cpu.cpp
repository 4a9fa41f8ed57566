#include "ops/attention/cpu.h"

#include "ops/attention/backward_kernel.h"
#include "ops/attention/few_rows_kernel.h"
#include "ops/attention/forward_kernel.h"

namespace oryx::ops::ORYX_ISA {
namespace {

// Runs units [0, count) in order of their listing, each thread taking the next that is free: causal blocks differ in
// work. Every thread makes its own Unit first, so that nothing can throw between units.
template <typename Unit, typename Args, typename Work>
void run_units(const Args& args, const Work* units, int64_t count) {
  std::atomic<int64_t> next{0};
  const int64_t threads = num_threads(), tasks = count < threads ? count : threads;
  parallel_for(tasks, 1, [&](int64_t, int64_t) {
    Unit unit(args);
    for (int64_t i = next++; i < count; i = next++) unit.run(units[i]);
  });
}

}  // namespace

template <typename T>
void attention_forward(const AttentionForward& args) {
  run_units<AttentionForwardUnit<T>>(args, args.units, args.num_units);
  run_units<FewRowsUnit<T>>(args, args.segments, args.num_segments);
  parallel_for(args.num_merges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) merge_segments<T>(args, args.merges[i]);
  });
}

template <typename T>
void attention_backward(const AttentionBackward& args) {
  run_units<AttentionBackwardUnit<T>>(args, args.units, args.num_units);
}

template <typename T>
void attention_delta(int64_t rows, int64_t dim, const void* o, const void* residual, const void* grad_o, void* delta) {
  using A = Arithmetic<T>;
  parallel_for(rows, row_grain(dim), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T *x = static_cast<const T*>(o) + r * dim, *y = static_cast<const T*>(grad_o) + r * dim;
      const T* rest = residual ? static_cast<const T*>(residual) + r * dim : nullptr;
      Vec<A> sum{};
      for_vectors<A>(dim, [&](int64_t i, auto size) {
        Vec<A> whole = get(x + i, size);
        if (rest) whole += Vec<A>(get(rest + i, size));
        sum += whole * Vec<A>(get(y + i, size));
      });
      static_cast<A*>(delta)[r] = vsum<A>(sum);
    }
  });
}

template void attention_forward<float>(const AttentionForward&);
template void attention_forward<double>(const AttentionForward&);
template void attention_forward<Bf16>(const AttentionForward&);
template void attention_backward<float>(const AttentionBackward&);
template void attention_backward<double>(const AttentionBackward&);
template void attention_backward<Bf16>(const AttentionBackward&);
template void attention_delta<float>(int64_t, int64_t, const void*, const void*, const void*, void*);
template void attention_delta<double>(int64_t, int64_t, const void*, const void*, const void*, void*);
template void attention_delta<Bf16>(int64_t, int64_t, const void*, const void*, const void*, void*);

}  // namespace oryx::ops::ORYX_ISA
