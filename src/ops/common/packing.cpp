#include "ops/common/packing.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace oryx::ops {

static std::vector<int64_t> to_host(const at::Tensor& x) {
  const at::Tensor host = x.to(at::kCPU, at::kLong).contiguous();
  const int64_t* data = host.const_data_ptr<int64_t>();
  return {data, data + host.numel()};
}

Packing make_packing(const char* op, const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                     int64_t num_tokens) {
  TORCH_CHECK(cu_seqlens.scalar_type() == at::kInt && cu_seqlens.dim() == 1 && cu_seqlens.numel() >= 2, op,
              ": cu_seqlens must be int32 [B+1] with B >= 1, but is ", cu_seqlens.scalar_type(), " ",
              cu_seqlens.sizes());
  Packing packing;
  packing.tokens = to_host(cu_seqlens);
  TORCH_CHECK(packing.tokens.front() == 0 && packing.tokens.back() == num_tokens, op,
              ": cu_seqlens must run from 0 to ", num_tokens, " (the packed tokens), but runs from ",
              packing.tokens.front(), " to ", packing.tokens.back());
  TORCH_CHECK(std::is_sorted(packing.tokens.begin(), packing.tokens.end()), op, ": cu_seqlens must not decrease");
  if (!read_index) {
    packing.rows = packing.tokens;
    return packing;
  }
  TORCH_CHECK(read_index->scalar_type() == at::kLong && read_index->dim() == 1, op,
              ": read_index must be int64 [R], but is ", read_index->scalar_type(), " ", read_index->sizes());
  packing.read = to_host(*read_index);
  const auto& read = packing.read;
  for (size_t r = 0; r < read.size(); ++r) {
    TORCH_CHECK(read[r] >= 0 && read[r] < num_tokens, op, ": read_index must lie in [0, ", num_tokens, "), but holds ",
                read[r]);
    TORCH_CHECK(r == 0 || read[r - 1] < read[r], op, ": read_index must ascend, but holds ", read[r], " after ",
                read[r == 0 ? 0 : r - 1]);
  }
  for (int64_t token : packing.tokens)
    packing.rows.push_back(std::lower_bound(read.begin(), read.end(), token) - read.begin());
  return packing;
}

at::ScalarType accumulate_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

void check_shape(const char* op, const char* name, const at::Tensor& x, at::IntArrayRef sizes) {
  bool same = x.dim() == static_cast<int64_t>(sizes.size());
  for (size_t i = 0; same && i < sizes.size(); ++i) same = sizes[i] < 0 || x.size(static_cast<int64_t>(i)) == sizes[i];
  if (same) return;
  std::string wanted;
  for (int64_t size : sizes)
    wanted += (wanted.empty() ? "" : ", ") + (size < 0 ? std::string("any") : std::to_string(size));
  TORCH_CHECK(false, op, ": ", name, " must have shape [", wanted, "], but has ", x.sizes());
}

void check_like(const char* op, const char* name, const at::Tensor& x, const at::Tensor& like) {
  TORCH_CHECK(x.scalar_type() == like.scalar_type(), op, ": ", name, " must be ", like.scalar_type(),
              " like the first argument, but is ", x.scalar_type());
  TORCH_CHECK(x.device() == like.device(), op, ": ", name, " must be on ", like.device(),
              " like the first argument, but is on ", x.device());
}

void check_float(const char* op, const char* name, const at::Tensor& x) {
  const auto type = x.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kDouble, op, ": ", name,
              " must be float32, bfloat16 or float64, but is ", type);
}

}  // namespace oryx::ops
