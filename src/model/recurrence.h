#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "model/config.h"

namespace oryx {

// A model's recurrence on packed tokens: the operation of its recurrent mixer, with the scaling of keys that the mixer
// asks for. Shapes as in ops/gated_delta_rule/op.h.
std::tuple<at::Tensor, at::Tensor> run_recurrence(const ModelConfig& config, const at::Tensor& q, const at::Tensor& k,
                                                  const at::Tensor& v, const at::Tensor& g, const at::Tensor& w,
                                                  const at::Tensor& cu_seqlens,
                                                  const std::optional<at::Tensor>& initial_state,
                                                  const std::optional<at::Tensor>& read_index);

}  // namespace oryx
