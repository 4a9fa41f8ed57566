#pragma once

// Kernels (every cpu.cpp) are compiled once for each instruction set, with ORYX_ISA naming a namespace, and chosen when
// the program runs. A kernel's header declares its functions through ORYX_FOR_EACH_ISA, and callers pick one with
// ORYX_KERNEL(name); kernels that multiply pairs of bfloat16 (ops/common/gemm.h) have two sets more, and use
// ORYX_FOR_EACH_PAIR_ISA and ORYX_PAIR_KERNEL. ORYX_ISA=avx2, avx512, ... in the environment forces a narrower set.
//
// In a build with CUDA the same declarations stand in namespace cuda, for kernels that cuda.cu defines; callers pick by
// a tensor's device with ORYX_KERNEL_ON(tensor, name).

namespace oryx::ops {

enum class Isa { generic, avx2, avx512, avx512bf16, amx };
Isa current_isa();              // throws c10::Error on an x86 processor without AVX2 and FMA
const char* isa_name(Isa isa);  // as in ORYX_ISA

}  // namespace oryx::ops

#ifdef ORYX_CUDA
#define ORYX_FOR_CUDA(...) \
  namespace cuda {         \
  __VA_ARGS__              \
  }
#define ORYX_KERNEL_ON(tensor, ...) ((tensor).is_cuda() ? &::oryx::ops::cuda::__VA_ARGS__ : ORYX_KERNEL(__VA_ARGS__))
#else
#define ORYX_FOR_CUDA(...)
#define ORYX_KERNEL_ON(tensor, ...) ORYX_KERNEL(__VA_ARGS__)
#endif

#if defined(__x86_64__)
#define ORYX_FOR_EACH_ISA(...) \
  ORYX_FOR_CUDA(__VA_ARGS__)   \
  namespace avx2 {             \
  __VA_ARGS__                  \
  }                            \
  namespace avx512 {           \
  __VA_ARGS__                  \
  }
#define ORYX_FOR_EACH_PAIR_ISA(...) \
  ORYX_FOR_EACH_ISA(__VA_ARGS__)    \
  namespace avx512bf16 {            \
  __VA_ARGS__                       \
  }                                 \
  namespace amx {                   \
  __VA_ARGS__                       \
  }
#define ORYX_KERNEL(...)                                                                      \
  (::oryx::ops::current_isa() >= ::oryx::ops::Isa::avx512 ? &::oryx::ops::avx512::__VA_ARGS__ \
                                                          : &::oryx::ops::avx2::__VA_ARGS__)
#define ORYX_PAIR_KERNEL(...)                                                                           \
  (::oryx::ops::current_isa() == ::oryx::ops::Isa::amx          ? &::oryx::ops::amx::__VA_ARGS__        \
   : ::oryx::ops::current_isa() == ::oryx::ops::Isa::avx512bf16 ? &::oryx::ops::avx512bf16::__VA_ARGS__ \
                                                                : ORYX_KERNEL(__VA_ARGS__))
#else
#define ORYX_FOR_EACH_ISA(...) \
  ORYX_FOR_CUDA(__VA_ARGS__)   \
  namespace generic {          \
  __VA_ARGS__                  \
  }
#define ORYX_FOR_EACH_PAIR_ISA(...) ORYX_FOR_EACH_ISA(__VA_ARGS__)
#define ORYX_KERNEL(...) (&::oryx::ops::generic::__VA_ARGS__)
#define ORYX_PAIR_KERNEL(...) ORYX_KERNEL(__VA_ARGS__)
#endif
