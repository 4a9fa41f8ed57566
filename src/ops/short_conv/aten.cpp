#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "ops/common/packing.h"
#include "ops/short_conv/op.h"

namespace oryx::ops {

std::tuple<at::Tensor, at::Tensor> short_conv_aten(const at::Tensor& x, const at::Tensor& weight,
                                                   const at::Tensor& cu_seqlens,
                                                   const std::optional<at::Tensor>& initial_state,
                                                   std::string_view activation) {
  const Packing packing = make_packing("short_conv", cu_seqlens, std::nullopt, x.size(0));
  const auto compute = accumulate_type(x.scalar_type());
  const int64_t channels = x.size(1), width = weight.size(1);
  const at::Tensor a = x.to(compute), w = weight.to(compute);
  const at::Tensor before = initial_state
                                ? initial_state->to(compute)
                                : at::zeros({packing.sequences(), channels, width - 1}, x.options().dtype(compute));
  // Every sequence behind its own history, end to end [C, N + B (W-1)]: one convolution serves all of them, and the
  // W-1 outputs at each seam, which mix two sequences, are left out.
  std::vector<at::Tensor> parts, states;
  for (int64_t b = 0; b < packing.sequences(); ++b) {
    const int64_t length = packing.tokens[b + 1] - packing.tokens[b];
    parts.push_back(at::cat({before[b], a.narrow(0, packing.tokens[b], length).t()}, 1));
    states.push_back(parts.back().narrow(1, length, width - 1));
  }
  const at::Tensor final_state = at::stack(states).to(x.scalar_type());
  const at::Tensor joined = at::cat(parts, 1);
  if (x.numel() == 0) return {x * 1, final_state};
  at::Tensor sum = joined.narrow(1, 0, joined.size(1) - (width - 1)) * w.select(1, 0).unsqueeze(1);
  for (int64_t j = 1; j < width; ++j)
    sum = sum + joined.narrow(1, j, joined.size(1) - (width - 1)) * w.select(1, j).unsqueeze(1);
  std::vector<at::Tensor> outputs;
  for (int64_t b = 0; b < packing.sequences(); ++b) {
    const int64_t length = packing.tokens[b + 1] - packing.tokens[b];
    if (length > 0) outputs.push_back(sum.narrow(1, packing.tokens[b] + b * (width - 1), length));
  }
  const at::Tensor y = at::cat(outputs, 1).t();
  return {(activation == "silu" ? at::silu(y) : y).to(x.scalar_type()).contiguous(), final_state};
}

}  // namespace oryx::ops
