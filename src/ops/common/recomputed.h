#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <functional>
#include <vector>

namespace oryx::ops {

using TensorFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

// function(inputs) with a graph of its own, in the backward pass of a node that kept the inputs only. They are the
// first of those that the node gives gradients to.
class Recomputed {
 public:
  Recomputed(const TensorFunction& function, const torch::autograd::Node& node,
             const std::vector<torch::autograd::SavedVariable>& inputs) {
    for (size_t i = 0; i < inputs.size(); ++i)
      leaves_.push_back(inputs[i].unpack().detach().requires_grad_(node.task_should_compute_output(i)));
    const c10::AutoGradMode with_gradients(true);
    outputs_ = function(leaves_);
  }

  const std::vector<at::Tensor>& outputs() const { return outputs_; }

  // Of the inputs, from those of the outputs; undefined is no gradient, both ways.
  std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& grads) const {
    std::vector<at::Tensor> of, given, wanted, out(leaves_.size());
    for (size_t i = 0; i < outputs_.size(); ++i)
      if (outputs_[i].requires_grad() && grads[i].defined()) of.push_back(outputs_[i]), given.push_back(grads[i]);
    for (const at::Tensor& leaf : leaves_)
      if (leaf.requires_grad()) wanted.push_back(leaf);
    if (of.empty() || wanted.empty()) return out;
    const auto found = torch::autograd::grad(of, wanted, given, std::nullopt, false, /*allow_unused=*/true);
    for (size_t i = 0, next = 0; i < leaves_.size(); ++i)
      if (leaves_[i].requires_grad()) out[i] = found[next++];
    return out;
  }

 private:
  std::vector<at::Tensor> leaves_, outputs_;
};

}  // namespace oryx::ops
