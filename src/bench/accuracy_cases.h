#pragma once

#include <string>
#include <vector>

#include "bench/judge.h"

namespace oryx::bench {

// An operation on one set of inputs.
struct Subject {
  std::string op, name;
  Function fast, reference;
  std::vector<Input> inputs;
  std::vector<std::string> output_names, input_names;
};

// Lengths around the kernels' chunks and blocks, inputs that are hard on the arithmetic, and long sequences of few and
// small heads (the references take their time). `quick` makes the long ones short.
std::vector<Subject> recurrence_subjects(const std::string& op, bool quick);  // gated_delta_rule, ssd
std::vector<Subject> attention_subjects(bool quick);
std::vector<Subject> pointwise_subjects(const std::string& op, bool quick);  // short_conv, rope, the norms
std::vector<Subject> loss_subjects(bool quick);                              // linear_cross_entropy

// int32 [sequences + 1].
at::Tensor boundaries(const std::vector<int64_t>& lengths);
// Normal numbers in float64, and the same with rows of unit length.
at::Tensor normal(at::IntArrayRef sizes);
at::Tensor unit_rows(const at::Tensor& x);

}  // namespace oryx::bench
