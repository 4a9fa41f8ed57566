#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace oryx {

// Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum whose matrix is replaced by its
// nearest semi-orthogonal one, so that every direction is learned at one rate.

// U V^T of m = U S V^T, approximately: 5 steps of the quintic Newton-Schulz iteration
//   X <- a X + (b A + c A^2) X,  A = X X^T,  (a, b, c) = (3.4445, -4.7750, 2.0315),  X_0 = m / |m|_F,
// which brings the singular values between about 0.7 and 1.2 (1 goes to 0.7). m [..., rows, columns], any floating
// type, kept.
at::Tensor orthogonalize(const at::Tensor& m);

// Which matrices are best taken together, as indices: on a GPU those of one shape (and then in bf16, as its authors
// do), up to kMuonNumbers of numbers, because one at a time those of a small model fill a tenth of it; on a CPU each
// alone.
inline constexpr int64_t kMuonNumbers = int64_t{1} << 26;
std::vector<std::vector<size_t>> muon_groups(const std::vector<std::pair<int64_t, int64_t>>& shapes, bool on_gpu);
std::vector<at::Tensor> orthogonalize_group(const std::vector<at::Tensor>& matrices);  // of one shape
std::vector<at::Tensor> orthogonalize_all(const std::vector<at::Tensor>& matrices);    // group by group

// One update in place, in two steps with the orthogonalization between them; both go element by element, and so serve
// parts of a matrix too:
//   M <- mu M + (1 - mu) G, which returns the Nesterov step (1 - mu) G + mu M;
//   w <- (1 - lr decay) w - lr 0.2 sqrt(longer side) U V^T of that step.
// The factor gives the update the size that AdamW's has, so that the learning rate and the weight decay of AdamW serve
// both (Liu et al. 2025, arXiv 2502.16982). Where `taken`, 0-dim and on the same device, is false (0.0), momentum and
// weight stay as they are, whatever the gradient is.
at::Tensor muon_momentum(const at::Tensor& gradient, at::Tensor& momentum, double mu, const at::Tensor& taken);
void muon_apply(at::Tensor& weight, const at::Tensor& orthogonal, int64_t longer_side, double lr, double decay,
                const at::Tensor& taken);

}  // namespace oryx
