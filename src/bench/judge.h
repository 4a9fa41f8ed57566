#pragma once

// How an operation is judged: the fast one's error against the reference in float64 is at most twice that of the
// reference computed in the same precision, plus a floor. Header only, so that the operations' tests share it.

#include <ATen/ops/empty_like.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

namespace oryx::bench {

struct Input {
  at::Tensor value;  // fp64
  bool grad = true;
  bool accumulate = false;  // has the accumulation type (states; gates): fp32 where the operation runs in bf16
};

// Takes the inputs in order, an undefined one standing for "absent", and gives the outputs.
using Function = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

struct Results {
  std::vector<at::Tensor> outputs, gradients;  // fp64; gradients undefined where the outputs do not depend on the input
};

// Inputs are rounded to the type `storage`, then `function` is computed in `compute`. Gradients are taken for the
// inputs that want one, with `cotangents` as the outputs' gradients; without cotangents there are none.
inline Results evaluate(const Function& function, const std::vector<Input>& inputs, at::ScalarType storage,
                        at::ScalarType compute, const std::vector<at::Tensor>& cotangents) {
  std::vector<at::Tensor> leaves, wanted;
  for (const Input& input : inputs) {
    if (!input.value.defined()) {
      leaves.emplace_back();
      continue;
    }
    const auto type = input.accumulate && storage == at::kBFloat16 ? at::kFloat : storage;
    const auto as = input.accumulate && compute == at::kBFloat16 ? at::kFloat : compute;
    at::Tensor leaf = input.value.to(type).to(as).detach();
    if (!input.value.is_contiguous()) leaf = at::empty_like(input.value, leaf.options()).copy_(leaf);
    leaf.requires_grad_(input.grad);
    leaves.push_back(leaf);
    if (input.grad) wanted.push_back(leaf);
  }
  Results results;
  const auto outputs = function(leaves);
  std::vector<at::Tensor> roots, seeds;
  for (size_t i = 0; i < outputs.size(); ++i) {
    results.outputs.push_back(outputs[i].detach().to(at::kDouble));
    if (cotangents.empty() || !outputs[i].requires_grad()) continue;
    roots.push_back(outputs[i]);
    seeds.push_back(cotangents[i].to(outputs[i].scalar_type()));
  }
  if (roots.empty() || wanted.empty()) return results;
  auto gradients = torch::autograd::grad(roots, wanted, seeds, /*retain_graph=*/false, /*create_graph=*/false,
                                         /*allow_unused=*/true);
  for (auto& g : gradients) results.gradients.push_back(g.defined() ? g.to(at::kDouble) : g);
  return results;
}

// The same numbers three times: the reference in float64 and in `type`, and the fast operation in `type`.
struct Trial {
  Results exact, naive, fast;
};
inline Trial try_out(const Function& fast, const Function& reference, const std::vector<Input>& inputs,
                     at::ScalarType type) {
  std::vector<at::Tensor> cotangents;
  for (const auto& out : evaluate(fast, inputs, type, type, {}).outputs)
    cotangents.push_back(at::randn(out.sizes(), at::kDouble).to(type).to(at::kDouble));
  return {.exact = evaluate(reference, inputs, type, at::kDouble, cotangents),
          .naive = evaluate(reference, inputs, type, type, cotangents),
          .fast = evaluate(fast, inputs, type, type, cotangents)};
}

// A few units in the last place, as a part of the largest value.
inline double rounding_floor(at::ScalarType type) {
  return type == at::kDouble ? 1e-12 : type == at::kFloat ? 4e-6 : 8e-3;
}

struct Errors {
  double largest, fast, naive;  // of the exact values; of the errors
  double allowed(double floor) const { return 2 * naive + floor * (largest + 1e-3); }
};
// Of tensors of one shape that is not empty.
inline Errors errors(const at::Tensor& fast, const at::Tensor& naive, const at::Tensor& exact) {
  const auto largest = [](const at::Tensor& x) { return x.abs().max().item<double>(); };
  return {largest(exact), largest(fast.sub(exact)), largest(naive.sub(exact))};
}

}  // namespace oryx::bench
