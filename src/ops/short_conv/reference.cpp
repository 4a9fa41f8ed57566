#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <vector>

#include "ops/common/packing.h"
#include "ops/short_conv/op.h"

namespace oryx::ops {

std::tuple<at::Tensor, at::Tensor> short_conv_reference(const at::Tensor& x, const at::Tensor& weight,
                                                        const at::Tensor& cu_seqlens,
                                                        const std::optional<at::Tensor>& initial_state,
                                                        std::string_view activation) {
  const Packing packing = make_packing("short_conv", cu_seqlens, std::nullopt, x.size(0));
  const auto compute = accumulate_type(x.scalar_type());
  const int64_t channels = x.size(1), width = weight.size(1);
  const at::Tensor w = weight.to(compute);
  std::vector<at::Tensor> outputs, states;
  for (int64_t b = 0; b < packing.sequences(); ++b) {
    const int64_t length = packing.tokens[b + 1] - packing.tokens[b];
    const at::Tensor before =
        initial_state ? (*initial_state)[b].to(compute) : at::zeros({channels, width - 1}, x.options().dtype(compute));
    const at::Tensor tokens = x.narrow(0, packing.tokens[b], length).to(compute).t();
    const at::Tensor sequence = at::cat({before, tokens}, 1);  // [C, W-1 + length]
    for (int64_t t = 0; t < length; ++t) {
      const at::Tensor sum = (sequence.narrow(1, t, width) * w).sum(1);
      outputs.push_back(activation == "silu" ? sum / (1 + at::exp(-sum)) : sum);
    }
    states.push_back(sequence.narrow(1, length, width - 1));
  }
  const at::Tensor y = outputs.empty() ? at::zeros_like(x) : at::stack(outputs).to(x.scalar_type());
  return {y, at::stack(states).to(x.scalar_type())};
}

}  // namespace oryx::ops
