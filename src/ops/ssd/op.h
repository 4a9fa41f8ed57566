#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace oryx::ops {

// Structured state-space duality, the recurrence of Mamba-2 (Dao and Gu, "Transformers are SSMs", arXiv 2405.21060,
// section 5), per key/value head with a state S [Kd, Vd]:
//
//     S <- exp(g) S + dt k v^T;   o = S^T q          (the skip D v is the model's)
//
// N packed tokens of B sequences (cu_seqlens int32 [B+1]); R rows are read (read_index int64 [R], ascending packed
// tokens; absent: all N). Nothing is normalised: q and k arrive as they are to be used.
//   q [R, H, Kd]; k [N, Hkv, Kd]; v [N, Hkv, Vd]   float32, bfloat16 or float64, all alike; Hkv divides H, and query
//   head h
//                                                  reads key/value head h / (H / Hkv)
//   g [N, Hkv]     log decay, <= 0; in q's dtype or in the state's
//   dt [N, Hkv]    step size; likewise
//   initial_state  [B, Hkv, Kd, Vd]; zero when absent. States are float32, or float64 for float64 inputs.
// Returns o [R, H, Vd] in q's dtype and final_state [B, Hkv, Kd, Vd]; an empty sequence passes its state on. Gradients
// for every floating-point input; no second derivatives. Time and memory are linear in N.
// cu_seqlens and read_index may lie on the CPU or beside the other inputs. On the CPU they are checked in every call;
// on a GPU the host has to wait for their values, and does so only for tensors that it has not met or that were written
// to.
// Throws c10::Error naming the argument when a shape, dtype, device or index is not as above.
std::tuple<at::Tensor, at::Tensor> ssd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       const at::Tensor& g, const at::Tensor& dt, const at::Tensor& cu_seqlens,
                                       const std::optional<at::Tensor>& initial_state = std::nullopt,
                                       const std::optional<at::Tensor>& read_index = std::nullopt);

// The loop above, token by token, differentiable: the oracle of the tests.
std::tuple<at::Tensor, at::Tensor> ssd_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                 const at::Tensor& g, const at::Tensor& dt,
                                                 const at::Tensor& cu_seqlens,
                                                 const std::optional<at::Tensor>& initial_state = std::nullopt,
                                                 const std::optional<at::Tensor>& read_index = std::nullopt);

// The chunked form through ATen operations, for devices without a kernel of ours (ops/common/recurrence_aten.h). Beside
// bfloat16 inputs what goes into a matrix product is rounded to bfloat16; sums, states and gates are float32.
std::tuple<at::Tensor, at::Tensor> ssd_aten(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const at::Tensor& g, const at::Tensor& dt, const at::Tensor& cu_seqlens,
                                            const std::optional<at::Tensor>& initial_state = std::nullopt,
                                            const std::optional<at::Tensor>& read_index = std::nullopt);

}  // namespace oryx::ops
