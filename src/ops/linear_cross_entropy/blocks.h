#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace oryx::ops {

// What is done to a block of logits [n, c], c words from word `first` on, for n tokens whose targets [n] are int64
// words of the whole vocabulary. Blocks are contiguous, in the storage type; the rest is in the accumulation type.
struct LogitKernels {
  // Takes the block into each token's running maximum and sum of exp(logit - maximum) [n], and the target's logit into
  // `target` [n] where it lies in the block.
  void (*reduce)(const at::Tensor& logits, const at::Tensor& targets, int64_t first, const at::Tensor& maximum,
                 const at::Tensor& sum, const at::Tensor& target);
  // Replaces the logits with grad * (exp(logit - lse) - onehot(target)); grad and lse are [n].
  void (*gradient)(const at::Tensor& logits, const at::Tensor& targets, int64_t first, const at::Tensor& lse,
                   const at::Tensor& grad);
  // Adds a product in bfloat16 to a contiguous sum in float32: asked for where not has_wide_products.
  void (*add)(const at::Tensor& to, const at::Tensor& product);
};

// linear_cross_entropy with autograd, by blocks.
at::Tensor blocked_linear_cross_entropy(const LogitKernels& kernels, const at::Tensor& h, const at::Tensor& weight,
                                        const at::Tensor& targets, int64_t ignore_index);
// linear_cross_entropy_sum, by blocks of tokens.
at::Tensor blocked_linear_cross_entropy_sum(const LogitKernels& kernels, const at::Tensor& h, const at::Tensor& weight,
                                            const at::Tensor& targets, int64_t ignore_index, double scale);
// linear_log_probs, by blocks.
std::tuple<at::Tensor, at::Tensor> blocked_linear_log_probs(const LogitKernels& kernels, const at::Tensor& h,
                                                            const at::Tensor& weight, const at::Tensor& targets);

}  // namespace oryx::ops
