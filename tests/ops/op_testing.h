#pragma once

// What every operation's test needs: ragged layouts, inputs of any precision, and the rule of judgement.

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bench/judge.h"

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

using bench::evaluate;
using bench::Function;
using bench::Input;
using bench::Results;
using bench::rounding_floor;

// The rule of bench/judge.h.
inline void expect_as_good(const at::Tensor& fast, const at::Tensor& naive, const at::Tensor& exact, double floor,
                           const std::string& what) {
  ASSERT_TRUE(fast.defined() && exact.defined()) << what << " is missing";
  ASSERT_EQ(fast.sizes(), exact.sizes()) << what;
  if (exact.numel() == 0) return;
  ASSERT_TRUE(at::isfinite(fast).all().item<bool>()) << what << " is not finite";
  const bench::Errors errors = bench::errors(fast, naive, exact);
  EXPECT_LE(errors.fast, errors.allowed(floor)) << what << ": largest value " << errors.largest;
}

// Compares outputs and all gradients of `fast` with `reference` in one precision.
inline void compare(const Function& fast, const Function& reference, const std::vector<Input>& inputs,
                    at::ScalarType type, const std::string& name, double floor = 0) {
  if (floor == 0) floor = rounding_floor(type);
  const auto [exact, naive, got] = bench::try_out(fast, reference, inputs, type);
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
