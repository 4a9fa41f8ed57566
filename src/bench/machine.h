#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace oryx::bench {

// Seconds that `count` calls of `work` take one after another: the wall clock, or CUDA events on a GPU.
double time_calls(c10::Device device, int64_t count, const std::function<void()>& work);

// Bytes that one call of `work` needs at its peak above what is there before it: resident memory (VmHWM, reset first,
// against VmRSS) or the caching allocator's peak on a GPU. Nothing where the system does not let the mark be reset.
std::optional<int64_t> peak_bytes(c10::Device device, const std::function<void()>& work);

int64_t physical_memory();   // bytes
int64_t last_level_cache();  // bytes; 0 when the system does not say

// How many cores other processes kept busy since this was made: timings beside a busy neighbour are worth little.
class OtherLoad {
 public:
  OtherLoad() : begin_(now()) {}
  std::optional<double> cores() const;

 private:
  struct Times {
    double wall, machine, own;  // seconds; machine < 0 where /proc/stat is not there
  };
  static Times now();
  Times begin_;
};

}  // namespace oryx::bench
