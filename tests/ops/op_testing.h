#pragma once

// What every operation's test needs: ragged layouts, inputs of any precision, and the rule of judgement.

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace oryx::ops::testing {

inline at::Tensor cu_seqlens(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> cu{0};
  for (int64_t n : lengths) cu.push_back(cu.back() + static_cast<int32_t>(n));
  return at::tensor(cu, at::kInt);
}

inline int64_t total(const std::vector<int64_t>& lengths) {
  int64_t n = 0;
  for (int64_t length : lengths) n += length;
  return n;
}

// Lengths that are not multiples of a chunk, one to five sequences, empty ones among them.
inline std::vector<std::vector<int64_t>> ragged_cases() {
  return {
      {1}, {15}, {16}, {17}, {63}, {64}, {65}, {130}, {1, 1}, {17, 63}, {0, 5, 64}, {65, 1, 0, 2}, {3, 0, 16, 70, 31}};
}

enum class Read { all, sparse, dense };  // read_index absent; about a tenth of the tokens; all but a few

inline std::optional<at::Tensor> read_index(Read kind, int64_t tokens) {
  if (kind == Read::all) return std::nullopt;
  std::vector<int64_t> index;
  for (int64_t t = 0; t < tokens; ++t) {
    const bool tenth = (t * 7 + 3) % 10 == 0;
    if (kind == Read::sparse ? tenth : !tenth) index.push_back(t);
  }
  return at::tensor(index, at::kLong);
}

inline at::Tensor normal(at::IntArrayRef shape) {
  return at::randn(shape, at::kDouble);
}

struct Input {
  at::Tensor value;  // fp64
  bool grad = true;
  bool accumulate = false;  // has the accumulation type (states; gates): fp32 where the operation runs in bf16
};

// Takes the inputs in order, an undefined one standing for "absent", and gives the outputs.
using Function = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

struct Results {
  std::vector<at::Tensor> outputs, gradients;  // fp64; gradients undefined where none was asked for
};

inline Results evaluate(const Function& function, const std::vector<Input>& inputs, at::ScalarType storage,
                        at::ScalarType compute, const std::vector<at::Tensor>& cotangents) {
  std::vector<at::Tensor> leaves, wanted;
  for (const Input& input : inputs) {
    if (!input.value.defined()) {
      leaves.emplace_back();
      continue;
    }
    // Rounded to the storage type first, so that every precision sees the same numbers.
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

// The fast operation's error against the fp64 reference is at most twice that of the reference computed in the same
// precision, plus a floor: a few units in the last place of the largest value.
inline void expect_as_good(const at::Tensor& fast, const at::Tensor& naive, const at::Tensor& exact, double floor,
                           const std::string& what) {
  ASSERT_TRUE(fast.defined() && exact.defined()) << what << " is missing";
  ASSERT_EQ(fast.sizes(), exact.sizes()) << what;
  if (exact.numel() == 0) return;
  ASSERT_TRUE(at::isfinite(fast).all().item<bool>()) << what << " is not finite";
  const double scale = exact.abs().max().item<double>();
  const double error = (fast - exact).abs().max().item<double>();
  const double allowed = 2 * (naive - exact).abs().max().item<double>() + floor * (scale + 1e-3);
  EXPECT_LE(error, allowed) << what << ": largest value " << scale;
}

inline double rounding_floor(at::ScalarType type) {
  return type == at::kDouble ? 1e-12 : type == at::kFloat ? 4e-6 : 8e-3;
}

// Compares outputs and all gradients of `fast` with `reference` in one precision.
inline void compare(const Function& fast, const Function& reference, const std::vector<Input>& inputs,
                    at::ScalarType type, const std::string& name, double floor = 0) {
  if (floor == 0) floor = rounding_floor(type);
  std::vector<at::Tensor> cotangents;
  for (const auto& out : evaluate(reference, inputs, type, at::kDouble, {}).outputs)
    cotangents.push_back(normal(out.sizes()).to(type).to(at::kDouble));
  const Results exact = evaluate(reference, inputs, type, at::kDouble, cotangents);
  const Results naive = evaluate(reference, inputs, type, type, cotangents);
  const Results got = evaluate(fast, inputs, type, type, cotangents);
  ASSERT_EQ(got.outputs.size(), exact.outputs.size()) << name;
  for (size_t i = 0; i < exact.outputs.size(); ++i)
    expect_as_good(got.outputs[i], naive.outputs[i], exact.outputs[i], floor, name + " output " + std::to_string(i));
  ASSERT_EQ(got.gradients.size(), exact.gradients.size()) << name;
  for (size_t i = 0; i < exact.gradients.size(); ++i) {
    if (!exact.gradients[i].defined()) continue;
    expect_as_good(got.gradients[i], naive.gradients[i], exact.gradients[i], floor,
                   name + " gradient " + std::to_string(i));
  }
}

}  // namespace oryx::ops::testing
