#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace oryx::ops {

// cu_seqlens and read_index on the host, checked: where each sequence's tokens and its rows of queries begin.
struct Packing {
  std::vector<int64_t> tokens;  // [B + 1]: sequence b holds packed tokens [tokens[b], tokens[b + 1])
  std::vector<int64_t> rows;    // [B + 1]: and rows [rows[b], rows[b + 1]) of queries and outputs
  std::vector<int64_t> read;    // [R] packed token of each row; empty when every token is read (row = token)
  int64_t sequences() const { return static_cast<int64_t>(tokens.size()) - 1; }
  int64_t num_tokens() const { return tokens.back(); }
  int64_t num_rows() const { return rows.back(); }
  int64_t token_of(int64_t row) const { return read.empty() ? row : read[row]; }
};

// Throws c10::Error, beginning with `op`, unless cu_seqlens is int32 [B+1], rises from 0 to num_tokens, and read_index
// (absent: all tokens) is int64 [R], strictly ascending in [0, num_tokens).
Packing make_packing(const char* op, const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                     int64_t num_tokens);

// The same, shared. Index tensors on another device are copied to the host, which waits for that device, only when
// they are first met: the last few are remembered for as long as nothing writes to them (by their version counter).
std::shared_ptr<const Packing> shared_packing(const char* op, const at::Tensor& cu_seqlens,
                                              const std::optional<at::Tensor>& read_index, int64_t num_tokens);

// Host integers, or an int64 index tensor of any device, on `device`, without waiting for work queued there.
at::Tensor upload(const std::vector<int64_t>& values, at::Device device);
at::Tensor index_on(const at::Tensor& index, at::Device device);

// The type that states and sums have: double for double, else float.
at::ScalarType accumulate_type(at::ScalarType type);

// Checks that name the argument: rank (sizes, -1 for any), device and dtype like `like`.
void check_shape(const char* op, const char* name, const at::Tensor& x, at::IntArrayRef sizes);
void check_like(const char* op, const char* name, const at::Tensor& x, const at::Tensor& like);  // dtype and device
void check_float(const char* op, const char* name, const at::Tensor& x);  // float32, bfloat16 or float64

}  // namespace oryx::ops
