#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/stack.h>

#include <vector>

#include "ops/common/packing.h"
#include "ops/swiglu/op.h"

namespace oryx::ops {

at::Tensor swiglu_reference(const at::Tensor& gate, const at::Tensor& up) {
  const auto compute = accumulate_type(gate.scalar_type());
  const int64_t width = gate.dim() == 0 || gate.numel() == 0 ? 1 : gate.size(-1);
  const at::Tensor gates = gate.reshape({-1, width}).to(compute), ups = up.reshape({-1, width}).to(compute);
  std::vector<at::Tensor> rows;
  for (int64_t n = 0; n < gates.size(0); ++n) rows.push_back(gates[n] / (1 + at::exp(-gates[n])) * ups[n]);
  const at::Tensor y = rows.empty() ? gates * ups : at::stack(rows);
  return y.reshape(gate.sizes()).to(gate.scalar_type());
}

}  // namespace oryx::ops
