#include <ATen/core/grad_mode.h>

#include "bench/cases.h"

namespace oryx::bench {

std::function<void()> forward_call(const std::vector<at::Tensor>& leaves, Forward forward) {
  return [leaves, forward = std::move(forward)] {
    const at::NoGradGuard guard;
    forward(leaves);
  };
}

std::function<void()> training_call(const std::vector<at::Tensor>& leaves, Forward forward,
                                    at::Tensor output_gradient) {
  std::vector<at::Tensor> own;
  own.reserve(leaves.size());
  for (const at::Tensor& leaf : leaves) own.push_back(leaf.detach().requires_grad_());
  return [own, forward = std::move(forward), output_gradient = std::move(output_gradient)] {
    forward(own).backward(output_gradient);
    for (const at::Tensor& leaf : own) leaf.mutable_grad().reset();  // here, so that the peak counts them once
  };
}

}  // namespace oryx::bench
