#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

namespace oryx::ops {

// Causal depthwise convolution over packed sequences (as before the mixers of Mamba-2, arXiv 2405.21060, and Gated
// DeltaNet, arXiv 2412.06464): within a sequence,
//
//     y[t, c] = act(sum_j weight[c, j] x[t - (W-1) + j, c]),   j < W
//
// where the W-1 tokens before the sequence's first come from initial_state, oldest first, and are zeros without one.
//
// x, y [N, C]; weight [C, W], W >= 1, in x's dtype or float32; cu_seqlens int32 [B+1] from 0 to N; initial_state and
// final_state [B, C, W-1] in x's dtype; activation "none" or "silu". float32, bfloat16 (computed in float32) and
// float64. Returns y and final_state: the last W-1 inputs of each sequence, initial_state's among them when the
// sequence is shorter. Gradients for x, weight and initial_state, through final_state too. Throws c10::Error, naming
// the argument, for other shapes, dtypes, devices or activations.
std::tuple<at::Tensor, at::Tensor> short_conv(const at::Tensor& x, const at::Tensor& weight,
                                              const at::Tensor& cu_seqlens,
                                              const std::optional<at::Tensor>& initial_state = std::nullopt,
                                              std::string_view activation = "none");

// The same, token by token in plain ATen operations: the oracle of the tests.
std::tuple<at::Tensor, at::Tensor> short_conv_reference(const at::Tensor& x, const at::Tensor& weight,
                                                        const at::Tensor& cu_seqlens,
                                                        const std::optional<at::Tensor>& initial_state = std::nullopt,
                                                        std::string_view activation = "none");

// The same in ATen operations on whole tensors: what devices without kernels run.
std::tuple<at::Tensor, at::Tensor> short_conv_aten(const at::Tensor& x, const at::Tensor& weight,
                                                   const at::Tensor& cu_seqlens,
                                                   const std::optional<at::Tensor>& initial_state = std::nullopt,
                                                   std::string_view activation = "none");

}  // namespace oryx::ops
