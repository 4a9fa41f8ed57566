#include "ops/common/packing.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <mutex>

namespace oryx::ops {

static std::vector<int64_t> to_host(const at::Tensor& x) {
  const at::Tensor host = x.to(at::kCPU, at::kLong).contiguous();
  const int64_t* data = host.const_data_ptr<int64_t>();
  return {data, data + host.numel()};
}

static Packing read_packing(const char* op, const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
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

namespace {

// A tensor as it was when its values were read. The weak reference keeps its address from being used again.
class Snapshot {
 public:
  Snapshot() = default;
  explicit Snapshot(const at::Tensor& x)
      : tensor_(x.getIntrusivePtr()), data_(x.const_data_ptr()), numel_(x.numel()), version_(x._version()) {}
  bool still(const at::Tensor& x) const {
    return tensor_._unsafe_get_target() == x.unsafeGetTensorImpl() && data_ == x.const_data_ptr() &&
           numel_ == x.numel() && version_ == x._version();
  }

 private:
  c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> tensor_{
      c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>()};
  const void* data_ = nullptr;
  int64_t numel_ = -1, version_ = -1;
};

struct Remembered {
  Snapshot cu_seqlens;
  std::optional<Snapshot> read_index;
  int64_t num_tokens = -1;
  std::shared_ptr<const Packing> packing;
};

struct Memory {
  std::mutex mutex;
  std::array<Remembered, 16> entries;
  size_t next = 0;
};

}  // namespace

std::shared_ptr<const Packing> shared_packing(const char* op, const at::Tensor& cu_seqlens,
                                              const std::optional<at::Tensor>& read_index, int64_t num_tokens) {
  const auto make = [&] {
    return std::make_shared<const Packing>(read_packing(op, cu_seqlens, read_index, num_tokens));
  };
  const bool on_host = cu_seqlens.is_cpu() && (!read_index || read_index->is_cpu());
  // Tensors made in inference mode do not count their versions.
  if (on_host || cu_seqlens.is_inference() || (read_index && read_index->is_inference())) return make();
  static auto* memory = new Memory;  // never destroyed: tensors may outlive static objects
  {
    const std::lock_guard lock(memory->mutex);
    for (const auto& e : memory->entries)
      if (e.packing && e.num_tokens == num_tokens && e.read_index.has_value() == read_index.has_value() &&
          e.cu_seqlens.still(cu_seqlens) && (!read_index || e.read_index->still(*read_index)))
        return e.packing;
  }
  Remembered entry{Snapshot(cu_seqlens), std::nullopt, num_tokens, make()};
  if (read_index) entry.read_index = Snapshot(*read_index);
  const auto packing = entry.packing;
  const std::lock_guard lock(memory->mutex);
  memory->entries[memory->next++ % memory->entries.size()] = std::move(entry);
  return packing;
}

Packing make_packing(const char* op, const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                     int64_t num_tokens) {
  if (cu_seqlens.is_cpu() && (!read_index || read_index->is_cpu()))
    return read_packing(op, cu_seqlens, read_index, num_tokens);
  return *shared_packing(op, cu_seqlens, read_index, num_tokens);
}

at::Tensor upload(const std::vector<int64_t>& values, at::Device device) {
  const auto size = static_cast<int64_t>(values.size());
  const at::Tensor host = at::empty({size}, at::TensorOptions(at::kLong).pinned_memory(device.is_cuda()));
  std::copy(values.begin(), values.end(), host.mutable_data_ptr<int64_t>());
  return host.to(device, /*non_blocking=*/true);
}

at::Tensor index_on(const at::Tensor& index, at::Device device) {
  return index.is_cpu() && !device.is_cpu() ? upload(to_host(index), device) : index.to(device);
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
