#pragma once

#include <cstdint>
#include <functional>

namespace oryx::ops {

// Runs work(i) for i in [0, count) on LibTorch's threads, `grain` indices to a thread at a time; the calling thread
// takes part. Kernels reach the threads through this, and so do without LibTorch's headers.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& work);
int num_threads();

}  // namespace oryx::ops
