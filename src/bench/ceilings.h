#pragma once

#include <c10/core/Device.h>

#include <string>

#include "base/json.h"

namespace oryx::bench {

// What the machine can do at most, as loops that do nothing else reach it; the best of a few runs on all threads.
//   CPU    fp32: multiply-adds in registers. bf16: the faster of that loop and of bfloat16 dot products (vdpbf16ps),
//          where the processor has them (not AMX's tiles: compare bf16_library_gflops). Reading: several streams a
//          thread through a buffer larger than the caches.
//   CUDA   matrix products of the library, and a device copy (bytes read and written).
struct Ceilings {
  double fp32_gflops = 0, bf16_gflops = 0, read_gb_per_s = 0;
  std::string fp32_from, bf16_from, read_from;              // what was measured, in words
  double fp32_library_gflops = 0, bf16_library_gflops = 0;  // a large matrix product by ops/common/products.h

  double flops(const std::string& dtype) const { return (dtype == "bf16" ? bf16_gflops : fp32_gflops) * 1e9; }
  Json to_json() const;
};

// `quick` takes a fraction of a second and buffers of a few MB: numbers for tests only.
Ceilings measure_ceilings(c10::Device device, bool quick);

}  // namespace oryx::bench
