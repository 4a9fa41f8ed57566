#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace oryx::ops {

// What is derived from a packing on a device, each thing made once, when it is first asked for: all layers of a model
// want the same. It is made on the stream that is current then.
class Derived {
 public:
  Derived();
  std::shared_ptr<const void> get(const std::string& name, at::Device device,
                                  const std::function<std::shared_ptr<const void>()>& make) const;

 private:
  struct Kept;
  std::shared_ptr<Kept> kept_;  // shared by copies
};

// cu_seqlens and read_index on the host, checked: where each sequence's tokens and its rows of queries begin.
struct Packing {
  std::vector<int64_t> tokens;  // [B + 1]: sequence b holds packed tokens [tokens[b], tokens[b + 1])
  std::vector<int64_t> rows;    // [B + 1]: and rows [rows[b], rows[b + 1]) of queries and outputs
  std::vector<int64_t> read;    // [R] packed token of each row; empty when every token is read (row = token)
  int64_t sequences() const { return static_cast<int64_t>(tokens.size()) - 1; }
  int64_t num_tokens() const { return tokens.back(); }
  int64_t num_rows() const { return rows.back(); }
  int64_t token_of(int64_t row) const { return read.empty() ? row : read[row]; }

  // make()'s result for this name and device, remembered.
  template <typename T, typename Make>
  std::shared_ptr<const T> derive(const std::string& name, at::Device device, Make&& make) const {
    return std::static_pointer_cast<const T>(
        derived.get(name, device, [&]() -> std::shared_ptr<const void> { return std::make_shared<const T>(make()); }));
  }
  at::Tensor tokens_on(at::Device device) const;  // int64 [B + 1]
  at::Tensor read_on(at::Device device) const;    // int64 [R], of a packing with `read`
  // int64 [N]: the row that reads each token, or -1.
  at::Tensor row_of_token_on(at::Device device) const;
  // int64: each token's place in its sequence, [N]; and that of each row's token, [R].
  at::Tensor positions_on(at::Device device) const;
  at::Tensor row_positions_on(at::Device device) const;

  Derived derived;
};

// Throws c10::Error, beginning with `op`, unless cu_seqlens is int32 [B+1], rises from 0 to num_tokens, and read_index
// (absent: all tokens) is int64 [R], strictly ascending in [0, num_tokens).
Packing make_packing(const char* op, const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                     int64_t num_tokens);

// The same, shared. Index tensors on another device are copied to the host, which waits for that device, only when
// they are first met: the last few are remembered for as long as nothing writes to them (by their version counter).
std::shared_ptr<const Packing> shared_packing(const char* op, const at::Tensor& cu_seqlens,
                                              const std::optional<at::Tensor>& read_index, int64_t num_tokens);

// Remembers it for tensors on another device whose values the host knows, so that nobody waits for them.
void introduce_packing(const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                       const std::vector<int64_t>& tokens, const std::vector<int64_t>& read);

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
