#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "bench/case.h"
#include "bench/inputs.h"
#include "bench/options.h"

namespace oryx::bench {

// The cases of some operations that `options` (complete) asks for, short ones first.
std::vector<Case> mixer_cases(Inputs& inputs, const OpsOptions& options);  // attention, recurrences, mixed sequences
std::vector<Case> step_cases(Inputs& inputs, const OpsOptions& options);  // one token a sequence, from a state or cache
std::vector<Case> pointwise_cases(Inputs& inputs, const OpsOptions& options);  // short_conv, rope, gated_rms_norm
std::vector<Case> loss_cases(Inputs& inputs, const OpsOptions& options);  // linear_cross_entropy, the library's linear

// `forward` without a graph; or with one, its gradient taken for all `leaves` (which must not be anyone else's) and
// dropped again.
using Forward = std::function<at::Tensor(const std::vector<at::Tensor>& leaves)>;
std::function<void()> forward_call(const std::vector<at::Tensor>& leaves, Forward forward);
std::function<void()> training_call(const std::vector<at::Tensor>& leaves, Forward forward, at::Tensor output_gradient);

}  // namespace oryx::bench
