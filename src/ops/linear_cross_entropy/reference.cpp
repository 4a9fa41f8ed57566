#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "ops/common/packing.h"
#include "ops/linear_cross_entropy/op.h"

namespace oryx::ops {

at::Tensor linear_cross_entropy_reference(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& targets,
                                          int64_t ignore_index) {
  const auto acc = accumulate_type(h.scalar_type());
  const at::Tensor words = weight.to(acc), zero = at::zeros({}, words.options());
  std::vector<at::Tensor> losses;
  for (int64_t n = 0; n < h.size(0); ++n) {
    const int64_t target = targets[n].item<int64_t>();
    const at::Tensor logits = at::mv(words, h[n].to(acc));
    losses.push_back(target == ignore_index ? zero : at::logsumexp(logits, 0).sub(logits[target]));
  }
  return losses.empty() ? at::zeros({0}, words.options()) : at::stack(losses);
}

}  // namespace oryx::ops
