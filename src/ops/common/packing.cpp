#include "ops/common/packing.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <utility>

namespace oryx::ops {

struct Derived::Kept {
  std::recursive_mutex mutex;  // what is derived may be made of what else is
  std::map<std::pair<std::string, std::string>, std::shared_ptr<const void>> by_name;
};

Derived::Derived() : kept_(std::make_shared<Kept>()) {}

std::shared_ptr<const void> Derived::get(const std::string& name, at::Device device,
                                         const std::function<std::shared_ptr<const void>()>& make) const {
  const std::lock_guard lock(kept_->mutex);
  auto& found = kept_->by_name[{name, device.str()}];
  if (!found) found = make();
  return found;
}

at::Tensor Packing::tokens_on(at::Device device) const {
  return *derive<at::Tensor>("tokens", device, [&] { return upload(tokens, device); });
}

at::Tensor Packing::read_on(at::Device device) const {
  return *derive<at::Tensor>("read", device, [&] { return upload(read, device); });
}

at::Tensor Packing::row_of_token_on(at::Device device) const {
  return *derive<at::Tensor>("row of token", device, [&] {
    std::vector<int64_t> rows_of(static_cast<size_t>(num_tokens()), -1);
    for (int64_t r = 0; r < num_rows(); ++r) rows_of[static_cast<size_t>(token_of(r))] = r;
    return upload(rows_of, device);
  });
}

static std::vector<int64_t> positions(const std::vector<int64_t>& begins) {
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(begins.back()));
  for (size_t b = 0; b + 1 < begins.size(); ++b)
    for (int64_t t = begins[b]; t < begins[b + 1]; ++t) out.push_back(t - begins[b]);
  return out;
}

at::Tensor Packing::positions_on(at::Device device) const {
  return *derive<at::Tensor>("positions", device, [&] { return upload(positions(tokens), device); });
}

at::Tensor Packing::row_positions_on(at::Device device) const {
  if (num_rows() == num_tokens()) return positions_on(device);
  return *derive<at::Tensor>("row positions", device, [&] {
    const std::vector<int64_t> all = positions(tokens);
    std::vector<int64_t> of_rows;
    of_rows.reserve(read.size());
    for (const int64_t token : read) of_rows.push_back(all[static_cast<size_t>(token)]);
    return upload(of_rows, device);
  });
}

static std::vector<int64_t> to_host(const at::Tensor& x) {
  const at::Tensor host = x.to(at::kCPU, at::kLong).contiguous();
  const int64_t* data = host.const_data_ptr<int64_t>();
  return {data, data + host.numel()};
}

// Of sequences that begin at `tokens`, where `read` (null: all tokens) has rows.
static Packing checked_packing(const char* op, std::vector<int64_t> tokens, const std::vector<int64_t>* read,
                               int64_t num_tokens) {
  Packing packing;
  packing.tokens = std::move(tokens);
  TORCH_CHECK(packing.tokens.front() == 0 && packing.tokens.back() == num_tokens, op,
              ": cu_seqlens must run from 0 to ", num_tokens, " (the packed tokens), but runs from ",
              packing.tokens.front(), " to ", packing.tokens.back());
  TORCH_CHECK(std::is_sorted(packing.tokens.begin(), packing.tokens.end()), op, ": cu_seqlens must not decrease");
  if (!read) {
    packing.rows = packing.tokens;
    return packing;
  }
  packing.read = *read;
  for (size_t r = 0; r < read->size(); ++r) {
    TORCH_CHECK((*read)[r] >= 0 && (*read)[r] < num_tokens, op, ": read_index must lie in [0, ", num_tokens,
                "), but holds ", (*read)[r]);
    TORCH_CHECK(r == 0 || (*read)[r - 1] < (*read)[r], op, ": read_index must ascend, but holds ", (*read)[r],
                " after ", (*read)[r == 0 ? 0 : r - 1]);
  }
  for (int64_t token : packing.tokens)
    packing.rows.push_back(std::lower_bound(read->begin(), read->end(), token) - read->begin());
  return packing;
}

static Packing read_packing(const char* op, const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                            int64_t num_tokens) {
  TORCH_CHECK(cu_seqlens.scalar_type() == at::kInt && cu_seqlens.dim() == 1 && cu_seqlens.numel() >= 2, op,
              ": cu_seqlens must be int32 [B+1] with B >= 1, but is ", cu_seqlens.scalar_type(), " ",
              cu_seqlens.sizes());
  if (!read_index) return checked_packing(op, to_host(cu_seqlens), nullptr, num_tokens);
  TORCH_CHECK(read_index->scalar_type() == at::kLong && read_index->dim() == 1, op,
              ": read_index must be int64 [R], but is ", read_index->scalar_type(), " ", read_index->sizes());
  const std::vector<int64_t> read = to_host(*read_index);
  return checked_packing(op, to_host(cu_seqlens), &read, num_tokens);
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
  bool gone() const { return tensor_.expired(); }

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

class Memory {
 public:
  std::shared_ptr<const Packing> find(const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                                      int64_t num_tokens) {
    const std::lock_guard lock(mutex_);
    for (const auto& e : entries_)
      if (e.packing && e.num_tokens == num_tokens && e.read_index.has_value() == read_index.has_value() &&
          e.cu_seqlens.still(cu_seqlens) && (!read_index || e.read_index->still(*read_index)))
        return e.packing;
    return nullptr;
  }
  void keep(const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
            const std::shared_ptr<const Packing>& packing) {
    Remembered entry{Snapshot(cu_seqlens), std::nullopt, packing->num_tokens(), packing};
    if (read_index) entry.read_index = Snapshot(*read_index);
    const std::lock_guard lock(mutex_);
    for (auto& e : entries_)
      if (e.cu_seqlens.gone() || (e.read_index && e.read_index->gone())) e = {};
    const auto free = std::ranges::find_if(entries_, [](const Remembered& e) { return !e.packing; });
    *(free != entries_.end() ? free : entries_.begin() + next_++ % entries_.size()) = std::move(entry);
  }
  // Tensors on the host are read again each time; those made in inference mode do not count their versions.
  static bool can_keep(const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index) {
    const bool on_host = cu_seqlens.is_cpu() && (!read_index || read_index->is_cpu());
    return !on_host && !cu_seqlens.is_inference() && !(read_index && read_index->is_inference());
  }

 private:
  std::mutex mutex_;
  std::array<Remembered, 32> entries_;
  size_t next_ = 0;
};

Memory& memory() {
  static auto* memory = new Memory;  // never destroyed: tensors may outlive static objects
  return *memory;
}

}  // namespace

std::shared_ptr<const Packing> shared_packing(const char* op, const at::Tensor& cu_seqlens,
                                              const std::optional<at::Tensor>& read_index, int64_t num_tokens) {
  const bool keep = Memory::can_keep(cu_seqlens, read_index);
  if (keep)
    if (auto found = memory().find(cu_seqlens, read_index, num_tokens)) return found;
  const auto packing = std::make_shared<const Packing>(read_packing(op, cu_seqlens, read_index, num_tokens));
  if (keep) memory().keep(cu_seqlens, read_index, packing);
  return packing;
}

void introduce_packing(const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& read_index,
                       const std::vector<int64_t>& tokens, const std::vector<int64_t>& read) {
  if (!Memory::can_keep(cu_seqlens, read_index)) return;
  memory().keep(cu_seqlens, read_index,
                std::make_shared<const Packing>(
                    checked_packing("introduce_packing", tokens, read_index ? &read : nullptr, tokens.back())));
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
