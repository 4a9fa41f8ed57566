#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "ops/common/recomputed.h"

namespace oryx::ops {

// Causal softmax attention over packed sequences: for row r that reads packed token t of a sequence that begins at s,
//
//     o_r = sum_j softmax_j(scale * q_r . k_j) v_j,   j in [s, t]
//
// computed in blocks with a running maximum and sum (Dao, "FlashAttention-2", arXiv 2307.08691, algorithms 1 and 2), so
// that memory is linear in the tokens and logits of any finite size are safe.
// N packed tokens of B sequences (cu_seqlens int32 [B+1], rising from 0 to N); R rows are read (read_index int64 [R],
// ascending packed tokens; absent: all N).
//   q [R, H, Kd]; k [N, Hkv, Kd]; v [N, Hkv, Vd]   float32, bfloat16 or float64, all alike; Hkv divides H, and query
//                                                  head h reads key/value head h / (H / Hkv)
//   scale          finite; multiplies the logits
//   rope_base      0, or the base of a rotary position embedding (rope/op.h) that q and k are turned by first, each by
//                  its token's place t - s in its sequence; Kd is then even. On the CPU, without gradients, where few
//                  rows read a sequence (decoding), keys are turned while they are read; otherwise by a pass of their
//                  own.
// Returns o [R, H, Vd] in q's dtype; logits and sums are float32, or float64 for float64 inputs. Gradients for q, k and
// v; no second derivatives. On the CPU outputs and gradients are the same bits for any number of threads and whatever
// other sequences are packed beside.
// cu_seqlens and read_index may lie on the CPU or beside the other inputs. On the CPU they are checked in every call;
// on a GPU the host has to wait for their values, and does so only for tensors that it has not met or that were written
// to.
// Throws c10::Error naming the argument when a shape, dtype, device or index is not as above.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_seqlens,
                     const std::optional<at::Tensor>& read_index = std::nullopt, double scale = 1.0,
                     double rope_base = 0.0);

// attention of {q, k, v} = function(inputs), which costs little beside it: norms, convolutions. On the CPU the inputs
// alone are kept for the backward pass, which computes q, k and v again (attention itself keeps them unturned).
at::Tensor attention_of(TensorFunction function, const std::vector<at::Tensor>& inputs, const at::Tensor& cu_seqlens,
                        const std::optional<at::Tensor>& read_index = std::nullopt, double scale = 1.0,
                        double rope_base = 0.0);

// The formula above, row by row, differentiable: the oracle of the tests.
at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index = std::nullopt,
                               double scale = 1.0, double rope_base = 0.0);

// For devices without a kernel of ours. On a GPU, for bfloat16, head dims up to 256 and a positive scale, the library's
// fused kernels (fused.h); otherwise blocks of query rows through ATen operations, probabilities computed again in the
// backward pass.
at::Tensor attention_aten(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_seqlens,
                          const std::optional<at::Tensor>& read_index = std::nullopt, double scale = 1.0,
                          double rope_base = 0.0);

// The checks of all of the above; the packing that they read.
struct Packing;
std::shared_ptr<const Packing> check_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                               const at::Tensor& cu_seqlens,
                                               const std::optional<at::Tensor>& read_index, double scale,
                                               double rope_base);

}  // namespace oryx::ops
