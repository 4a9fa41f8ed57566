#pragma once

// What the tests of the operations without recurrence or attention add to op_testing.h.

#include <ATen/Parallel.h>

#include "ops/op_testing.h"

namespace oryx::ops::testing {

// Every class of row length against the vector length: within one vector, whole vectors, a remainder.
inline const std::vector<int64_t> kWidths{8, 16, 24, 32, 40, 64, 96, 128, 256};

inline void expect_error(const std::function<void()>& call, const std::string& words) {
  try {
    call();
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what_without_backtrace()).find(words), std::string::npos)
        << "said: " << error.what_without_backtrace() << "\nwanted: " << words;
    return;
  }
  ADD_FAILURE() << "no error; wanted: " << words;
}

// Gradients of gradients of `loss` with respect to `leaf` are refused in the name of `op`.
inline void expect_no_double_backward(const at::Tensor& loss, const at::Tensor& leaf, const std::string& op) {
  expect_error([&] { torch::autograd::grad({loss}, {leaf}, {}, true, /*create_graph=*/true); },
               op + ": gradients of gradients");
}

}  // namespace oryx::ops::testing
