#include "ops/common/unit_lower_inverse.h"

#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace oryx::ops {
namespace {

// Below this size, merging works on whole blocks that are zero outside the part in question: products of 2 x 2
// matrices would take as long.
constexpr int64_t kSmall = 16;

at::Tensor as_block_matrices(const at::Tensor& flat, int64_t Z, int64_t C) {
  return flat.as_strided({Z, C, C}, {C * (C + 1), C, 1});
}

// Of the diagonal blocks of size `pitch`, the parts of s x s that begin at (row, column) of each.
at::Tensor parts(const at::Tensor& x, int64_t pitch, int64_t s, int64_t row, int64_t column) {
  const int64_t C = x.size(1);
  return x.as_strided({x.size(0) * C / pitch, s, s}, {pitch * (C + 1), C, 1}, x.storage_offset() + row * C + column);
}

at::Tensor small_inverses(const at::Tensor& N) {
  const int64_t C = N.size(1), blocks = N.size(0) * C / kSmall, size = kSmall * kSmall;
  // below[l]: N where merging blocks of 2^l reads it, zero elsewhere.
  const at::Tensor below = at::zeros({4, blocks, kSmall, kSmall}, N.options());
  for (int64_t level = 0; level < 4; ++level) {
    const int64_t s = int64_t{1} << level, pairs = kSmall / (2 * s);
    below[level]
        .as_strided({blocks, pairs, s, s}, {size, 2 * s * (kSmall + 1), kSmall, 1}, level * blocks * size + s * kSmall)
        .copy_(
            N.as_strided({blocks, pairs, s, s}, {kSmall * (C + 1), 2 * s * (C + 1), C, 1}, N.storage_offset() + s * C));
  }
  at::Tensor X = below[0].neg();
  X.diagonal(0, 1, 2).fill_(1);
  for (int64_t level = 1; level < 4; ++level) X = at::baddbmm(X, at::bmm(X, below[level]), X, 1, -1);
  return X;
}

}  // namespace

at::Tensor empty_block_matrices(int64_t Z, int64_t C, const at::TensorOptions& options) {
  return as_block_matrices(at::empty({Z * C * (C + 1)}, options), Z, C);
}

at::Tensor unit_lower_inverse(const at::Tensor& N) {
  const int64_t Z = N.size(0), C = N.size(1);
  at::Tensor X = as_block_matrices(at::zeros({Z * C * (C + 1)}, N.options()), Z, C);
  parts(X, kSmall, kSmall, 0, 0).copy_(small_inverses(N));
  for (int64_t s = kSmall; s < C; s *= 2) {
    const at::Tensor X11 = parts(X, 2 * s, s, 0, 0), X22 = parts(X, 2 * s, s, s, s);
    at::Tensor X21 = parts(X, 2 * s, s, s, 0);
    at::baddbmm_out(X21, X21, X22, at::bmm(parts(N, 2 * s, s, s, 0), X11), 0, -1);
  }
  return X;
}

}  // namespace oryx::ops
