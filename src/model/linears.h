#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <tuple>
#include <vector>

namespace oryx {

// One of the linear layers that read the same rows.
struct Linear {
  at::Tensor weight;                              // [out, in], as stored
  std::optional<at::Tensor> rows = std::nullopt;  // which rows it reads, int64, each once (absent: all)
};

// x[rows] weight^T for each of the layers, in x's type, where x [N, in] = function(inputs) costs little beside them: a
// norm, an activation. Neither x, its rows nor weights in x's type are kept for the backward pass, which computes them
// again, as it does the function's own graph. `order`: where the layers with `rows` read each row of x once between
// them, the place of each among theirs laid end to end; their gradients are then gathered instead of added.
std::vector<at::Tensor> linears(std::function<at::Tensor(const std::vector<at::Tensor>&)> function,
                                const std::vector<at::Tensor>& inputs, const std::vector<Linear>& layers,
                                const std::optional<at::Tensor>& order = std::nullopt);

// The same of rows x = ops::add_rms_norm(stream, delta, norm_weight, eps), a step of a residual stream, whose sum is
// returned first and kept; in the backward pass what comes to the sum from elsewhere is added where the norm's gradient
// is written.
std::tuple<at::Tensor, std::vector<at::Tensor>> normed_linears(const at::Tensor& stream, const at::Tensor& delta,
                                                               const at::Tensor& norm_weight, double eps,
                                                               const std::vector<Linear>& layers,
                                                               const std::optional<at::Tensor>& order = std::nullopt);

}  // namespace oryx
