#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace oryx::ops {

// Cross entropy of a linear layer's logits, in nats, for each token n with target t_n != ignore_index:
//
//     loss_n = log sum_j exp(h_n . w_j) - h_n . w_{t_n},      and 0 where t_n == ignore_index
//
// The N x V logits never exist at once: blocks of tokens by vocabulary are computed, reduced with a running maximum and
// sum, and computed again in the backward pass, whose gradient of the logits is softmax - onehot (Wijmans et al., "Cut
// Your Losses in Large-Vocabulary Language Models", arXiv 2411.09009, section 4, without its filtering of gradients).
//   h [N, D]; weight [V, D]   float32, bfloat16 or float64, alike
//   targets [N]               int64, in [0, V) or ignore_index; on h's device or on the CPU
// Returns loss [N], float32 (float64 for float64 inputs). Logits are a matrix product in the inputs' dtype; all after
// it is float32 (float64). Gradients for h and weight for any gradient of the loss; no second derivatives. Beside
// inputs, outputs and gradients it takes a few blocks of 2^20 logits (on a GPU a sixteenth of all, 2^24 at most), and
// another [N, D] where tokens are ignored: those are left out of all products. With bfloat16 inputs h's gradient is
// summed in float32, and keeps that memory. Throws c10::Error naming the argument when a shape, dtype, device or target
// is not as above. Targets on a GPU are not looked at, which would wait for it: a wrong one's loss is NaN, and those to
// ignore go through the products with weight 0.
at::Tensor linear_cross_entropy(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& targets,
                                int64_t ignore_index = -100);

// scale times the sum over the tokens, a scalar, for training: its gradients are computed with it while the logits are
// there, so the logits' product is taken once, where the gradient of each token's loss needs it twice. Inputs, results
// and errors as above, but weight may be float32 beside a bfloat16 h, and its gradient then is, unrounded. Logits of
// whole rows exist: an eighth of all or 2^20, 256 rows (on a GPU 4,096) at most. Where no gradient is wanted, the sum
// of the above.
at::Tensor linear_cross_entropy_sum(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& targets,
                                    int64_t ignore_index = -100, double scale = 1.0);

// For scoring: log p_n = h_n . w_{t_n} - log sum_j exp(h_n . w_j), and the same of the largest logit, both [N] as the
// loss above, by the same blocks. targets [N] int64 in [0, V). No gradients.
std::tuple<at::Tensor, at::Tensor> linear_log_probs(const at::Tensor& h, const at::Tensor& weight,
                                                    const at::Tensor& targets);
std::tuple<at::Tensor, at::Tensor> linear_log_probs_aten(const at::Tensor& h, const at::Tensor& weight,
                                                         const at::Tensor& targets);

// The formula above, token by token, differentiable: the oracle of the tests.
at::Tensor linear_cross_entropy_reference(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& targets,
                                          int64_t ignore_index = -100);

// The same blocks with ATen operations on them, for devices without kernels of ours.
at::Tensor linear_cross_entropy_aten(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& targets,
                                     int64_t ignore_index = -100);
at::Tensor linear_cross_entropy_sum_aten(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& targets,
                                         int64_t ignore_index = -100, double scale = 1.0);

}  // namespace oryx::ops
