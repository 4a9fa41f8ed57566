#include "bench/loops.h"

#include "base/error.h"

namespace oryx::bench {

Loops best_loops() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  require(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), "the processor has no AVX2 and FMA");
  if (!__builtin_cpu_supports("avx512f")) return {"avx2", 8, avx2::multiply_add, avx2::read_streams, nullptr};
  const bool dots = __builtin_cpu_supports("avx512bf16");
  return {"avx512", 16, avx512::multiply_add, avx512::read_streams, dots ? dot_bf16 : nullptr};
#else
  return {"generic", 4, generic::multiply_add, generic::read_streams, nullptr};
#endif
}

}  // namespace oryx::bench
