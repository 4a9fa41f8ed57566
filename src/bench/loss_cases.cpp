#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>

#include <algorithm>

#include "bench/cases.h"
#include "bench/formulas.h"
#include "ops/common/products.h"
#include "ops/linear_cross_entropy/op.h"

namespace oryx::bench {

// The loss forward and backward, and one product of the same shape by the library, whose rate is what to compare with.
std::vector<Case> loss_cases(Inputs& inputs, const OpsOptions& options) {
  using Tensors = std::vector<at::Tensor>;
  std::vector<Case> cases;
  if (!options.has_op("linear_cross_entropy")) return cases;
  const int64_t words = options.quick ? 512 : 32000, width = options.quick ? 32 : 512;
  const int64_t longest = 8192;  // beyond this the library's logits alone take gigabytes
  int64_t tokens = options.lengths.front();
  for (const int64_t T : options.lengths)
    if (T <= longest) tokens = T;
  const auto integers = at::device(inputs.device()).dtype(at::kLong);
  for (const std::string& dtype : options.dtypes) {
    const at::Tensor h = inputs.normal({tokens, width}, dtype), weight = inputs.normal({words, width}, dtype) * 0.02;
    const at::Tensor targets = at::randint(words, {tokens}, integers);
    const double product = linear_flops(tokens, width, words);
    Row row{.op = "linear_cross_entropy",
            .pass = kForward,
            .dtype = dtype,
            .T = tokens,
            .heads = 1,
            .dim = width,
            .tokens = tokens};
    row.extra["vocab"] = words;
    row.extra["logits_bytes"] = tokens * words * (dtype == "bf16" ? 2 : 4);
    row.flops = product;
    const auto loss = [targets](const Tensors& x) { return ops::linear_cross_entropy(x[0], x[1], targets); };
    if (options.has_pass(kForward)) cases.push_back({row, forward_call({h, weight}, loss)});
    if (options.has_pass(kTraining)) {
      row.pass = kTraining, row.flops = kLinearTraining * product;
      const at::Tensor gradient = at::full({tokens}, 1.0 / static_cast<double>(tokens), at::device(inputs.device()));
      cases.push_back({row, training_call({h, weight}, loss, gradient)});
      row.op = "linear_cross_entropy_sum";
      cases.push_back(
          {row,
           training_call(
               {h, weight}, [targets](const Tensors& x) { return ops::linear_cross_entropy_sum(x[0], x[1], targets); },
               gradient[0])});
    }
    row.op = "linear", row.pass = kForward, row.flops = product;
    cases.push_back({row, forward_call({h, weight}, [](const Tensors& x) { return ops::linear(x[0], x[1]); })});
  }
  return cases;
}

}  // namespace oryx::bench
