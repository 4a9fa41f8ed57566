#include "ops/common/isa.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string_view>

namespace oryx::ops {

#if defined(__x86_64__)
static Isa detect() {
  __builtin_cpu_init();
  TORCH_CHECK(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
              "Oryx's CPU operations need a processor with AVX2 and FMA");
  const char* forced = std::getenv("ORYX_ISA");
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  TORCH_CHECK(!forced || std::string_view(forced) == "avx2" || (std::string_view(forced) == "avx512" && wide),
              "ORYX_ISA must be avx2 or, on a processor that has it, avx512");
  return wide && !(forced && std::string_view(forced) == "avx2") ? Isa::avx512 : Isa::avx2;
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
