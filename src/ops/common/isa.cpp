#include "ops/common/isa.h"

#include <c10/util/Exception.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <string_view>

namespace oryx::ops {

#if defined(__x86_64__)
// The processor has matrix tiles, the system too, and lets this process use them (arch_prctl in Linux's documentation,
// x86/xstate).
static bool has_amx() {
#if defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & (1u << 22)) || !(d & (1u << 24))) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

static Isa detect() {
  __builtin_cpu_init();
  TORCH_CHECK(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
              "Oryx's CPU operations need a processor with AVX2 and FMA");
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool dots = wide && __builtin_cpu_supports("avx512bf16");
  const Isa best = !wide ? Isa::avx2 : !dots ? Isa::avx512 : !has_amx() ? Isa::avx512bf16 : Isa::amx;
  const char* forced = std::getenv("ORYX_ISA");
  // Intel's processors do half as many bfloat16 dot products a cycle as AMD's, no more than float's multiply-add.
  if (!forced) return best == Isa::avx512bf16 && __builtin_cpu_is("intel") ? Isa::avx512 : best;
  for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::amx})
    if (isa <= best && std::string_view(forced) == isa_name(isa)) return isa;
  TORCH_CHECK(false, "ORYX_ISA must be avx2, avx512, avx512bf16 or amx, and one that this processor has, but is ",
              forced);
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

const char* isa_name(Isa isa) {
  constexpr const char* kNames[] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};
  return kNames[static_cast<int>(isa)];
}

}  // namespace oryx::ops
