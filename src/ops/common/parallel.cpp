#include "ops/common/parallel.h"

#include <ATen/Parallel.h>

namespace oryx::ops {

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& work) {
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { work(begin, end); });
}

int num_threads() {
  return at::get_num_threads();
}

}  // namespace oryx::ops
