#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>

namespace oryx::ops {

using Rope = at::Tensor (*)(const at::Tensor& x, const at::Tensor& positions, double base);

// q and k of attention, each turned by `rope` by its token's place in its sequence. Does not wait for a GPU.
std::pair<at::Tensor, at::Tensor> rotated(Rope rope, const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                                          double rope_base);

}  // namespace oryx::ops
