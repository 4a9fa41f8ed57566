#include "ops/common/isa.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string_view>
#include <utility>

namespace oryx::ops {

#if defined(__x86_64__)
static Isa detect() {
  __builtin_cpu_init();
  TORCH_CHECK(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
              "Oryx's CPU operations need a processor with AVX2 and FMA");
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const Isa best = !wide ? Isa::avx2 : __builtin_cpu_supports("avx512bf16") ? Isa::avx512bf16 : Isa::avx512;
  const char* forced = std::getenv("ORYX_ISA");
  // Intel's processors do half as many bfloat16 dot products a cycle as AMD's, and then float's multiply-add does as
  // much.
  if (!forced) return best == Isa::avx512bf16 && __builtin_cpu_is("intel") ? Isa::avx512 : best;
  const std::pair<std::string_view, Isa> names[] = {
      {"avx2", Isa::avx2}, {"avx512", Isa::avx512}, {"avx512bf16", Isa::avx512bf16}};
  for (const auto& [name, isa] : names)
    if (name == forced && isa <= best) return isa;
  TORCH_CHECK(false, "ORYX_ISA must be avx2, avx512 or avx512bf16, and one that this processor has, but is ", forced);
}
#else
static Isa detect() {
  return Isa::generic;
}
#endif

Isa current_isa() {
  static const Isa isa = detect();
  return isa;
}

}  // namespace oryx::ops
