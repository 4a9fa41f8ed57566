#include "model/recurrence.h"

#include <ATen/TensorOperators.h>

#include <cmath>

#include "ops/gated_delta_rule/op.h"
#include "ops/ssd/op.h"

namespace oryx {

std::tuple<at::Tensor, at::Tensor> run_recurrence(const ModelConfig& config, const at::Tensor& q, const at::Tensor& k,
                                                  const at::Tensor& v, const at::Tensor& g, const at::Tensor& w,
                                                  const at::Tensor& cu_seqlens,
                                                  const std::optional<at::Tensor>& initial_state,
                                                  const std::optional<at::Tensor>& read_index) {
  if (config.recurrent() == Mixer::gated_deltanet)
    return ops::gated_delta_rule(q, k, v, g, w, cu_seqlens, initial_state, read_index);
  const at::Tensor scaled = k * std::sqrt(static_cast<double>(config.head_dim));
  return ops::ssd(q, scaled, v, g, w, cu_seqlens, initial_state, read_index);
}

}  // namespace oryx
