#pragma once

#include <ATen/core/Tensor.h>

namespace oryx::ops {

// Uninitialised [Z, C, C] whose batches are C (C + 1) apart: the diagonal blocks of one size, of all batches, are then
// evenly spaced, and one batched product without a copy takes them all. C a power of two, at least 16.
at::Tensor empty_block_matrices(int64_t Z, int64_t C, const at::TensorOptions& options);

// (I + N)^-1 for strictly lower triangular N from empty_block_matrices, laid out likewise. Inverses of diagonal blocks
// are merged to twice their size, (X11 0; -X22 N21 X11, X22), so that rounding grows as in forward substitution;
// a product of powers of N would be shorter but loses all digits for nearly parallel keys.
at::Tensor unit_lower_inverse(const at::Tensor& N);

}  // namespace oryx::ops
