#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>

#include <memory>

#include "bench/cases.h"
#include "bench/formulas.h"
#include "ops/gated_rms_norm/op.h"
#include "ops/rope/op.h"
#include "ops/short_conv/op.h"

namespace oryx::bench {
namespace {

using Tensors = std::vector<at::Tensor>;

Case pointwise(Inputs& inputs, const std::string& op, int64_t T, int64_t heads, int64_t dim, const std::string& dtype) {
  const int64_t operands = op == "gated_rms_norm" ? 2 : 1, element = dtype == "bf16" ? 2 : 4;
  Row row{.op = op,
          .pass = kForward,
          .dtype = dtype,
          .T = T,
          .heads = heads,
          .dim = dim,
          .tokens = T,
          .bound = Bound::bytes};
  row.bytes = static_cast<double>((operands + 1) * T * heads * dim * element);
  // Other data in each call, so that it comes from memory.
  const Tensors data = inputs.rotation(dtype, {operands, T, heads, dim});
  const auto turn = std::make_shared<size_t>(0);
  const auto next = [data, turn] { return data[(*turn)++ % data.size()]; };
  Forward forward;
  if (op == "short_conv") {
    const at::Tensor weight = inputs.normal({heads * dim, 4}, dtype), cu = inputs.cu_seqlens(1, T);
    forward = [=](const Tensors&) {
      return std::get<0>(ops::short_conv(next().view({T, heads * dim}), weight, cu, std::nullopt, "silu"));
    };
  } else if (op == "rope") {
    const at::Tensor positions = at::arange(T, at::device(inputs.device()).dtype(at::kLong));
    forward = [=](const Tensors&) { return ops::rope(next().select(0, 0), positions, 1e4); };
  } else {
    const at::Tensor weight = at::ones({dim}, at::device(inputs.device()).dtype(scalar_type(dtype)));
    forward = [=](const Tensors&) {
      const at::Tensor x = next();
      return ops::gated_rms_norm(x.select(0, 0), x.select(0, 1), weight, 1e-5);
    };
  }
  return {row, forward_call({}, forward)};
}

}  // namespace

// At the longest sequence only: shorter ones show the caches, not the operation.
std::vector<Case> pointwise_cases(Inputs& inputs, const OpsOptions& options) {
  std::vector<Case> cases;
  if (!options.has_pass(kForward)) return cases;
  for (const int64_t dim : options.dims)
    for (const std::string& dtype : options.dtypes)
      for (const char* op : {"short_conv", "rope", "gated_rms_norm"})
        if (options.has_op(op))
          cases.push_back(pointwise(inputs, op, options.lengths.back(), options.heads, dim, dtype));
  return cases;
}

}  // namespace oryx::bench
