#include "ops/common/chunk_list.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "ops/common/tensors.h"

namespace oryx::ops {

ChunkList ChunkList::of(const Packing& packing, int64_t size, at::Device device) {
  return *packing.derive<ChunkList>("chunks of " + std::to_string(size), device,
                                    [&] { return ChunkList(packing, size, device); });
}

ChunkList::ChunkList(const Packing& packing, int64_t size, at::Device device)
    : size_(size), sequences_(packing.sequences()), tokens_(packing.num_tokens()) {
  const int64_t B = sequences_;
  const auto length = [&](int64_t b) { return packing.tokens[b + 1] - packing.tokens[b]; };
  const auto chunks = [&](int64_t b) { return (length(b) + size - 1) / size; };
  std::vector<int64_t> order(B);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return chunks(a) > chunks(b); });
  for (int64_t step = 0, active = B; step < chunks(order[0]); ++step) {
    while (chunks(order[active - 1]) <= step) --active;
    first_.push_back(first_.back() + active);
  }
  if (count() != steps() * B) uneven_firsts_ = upload(first_, device);
  bool same = true;
  for (int64_t b = 1; b < B; ++b) same &= length(b) == length(0);
  if (same && length(0) > 0) {
    uniform_ = length(0);
    return;
  }

  std::vector<int64_t> starts, stops, begin_rows, end_grad_rows, final_rows(B), initial_grad_rows(B);
  for (int64_t step = 0; step < steps(); ++step)
    for (int64_t i = 0; i < count(step); ++i) {
      const int64_t b = order[i];
      starts.push_back(packing.tokens[b] + step * size);
      stops.push_back(packing.tokens[b + 1]);
      begin_rows.push_back(step == 0 ? i : B + first(step - 1) + i);
      end_grad_rows.push_back(i < next_count(step) ? first(step + 1) + i : this->count() + i);
    }
  for (int64_t i = 0; i < B; ++i) {
    const int64_t b = order[i], n = chunks(b);
    final_rows[b] = n == 0 ? i : B + first(n - 1) + i;
    initial_grad_rows[b] = n == 0 ? this->count() + i : i;
  }
  std::vector<int64_t> all;
  const std::vector<int64_t>* const parts[] = {&starts,     &stops, &begin_rows,       &end_grad_rows,
                                               &final_rows, &order, &initial_grad_rows};
  for (const auto* part : parts) all.insert(all.end(), part->begin(), part->end());
  const at::Tensor uploaded = upload(all, device);
  int64_t at = 0;
  const auto take = [&](int64_t n) {
    at += n;
    return uploaded.slice(0, at - n, at);
  };
  const int64_t Z = this->count();
  const at::Tensor start = take(Z), stop = take(Z);
  begin_rows_ = take(Z), end_grad_rows_ = take(Z), final_rows_ = take(B), order_ = take(B);
  initial_grad_rows_ = take(B);
  const at::Tensor tokens = start.unsqueeze(1) + at::arange(size, start.options());
  places_ = at::where(tokens.lt(stop.unsqueeze(1)), tokens, tokens_).flatten();
  // Places, inverted; all padding writes the row behind the last.
  where_ = at::empty({tokens_ + 1}, start.options());
  where_.index_copy_(0, places_, at::arange(Z * size, start.options()));
  where_ = where_.slice(0, 0, tokens_);
}

void ChunkList::cut(const at::Tensor& x, const at::Tensor& to) const {
  const int64_t B = sequences_, H = x.size(1), g = x.size(2), d = x.size(3);
  if (uniform_ > 0) {
    at::Tensor y = x.reshape({B, uniform_, H, g, d});
    if (uniform_ % size_ != 0) y = at::constant_pad_nd(y, {0, 0, 0, 0, 0, 0, 0, size_ - uniform_ % size_});
    to.view({steps(), B, H, g, size_, d}).copy_(y.view({B, steps(), size_, H, g, d}).permute({1, 0, 3, 4, 2, 5}));
    return;
  }
  const at::Tensor padded = at::cat({x, at::zeros({1, H, g, d}, x.options())});
  to.copy_(padded.index_select(0, places_).view({this->count(), size_, H, g, d}).permute({0, 2, 3, 1, 4}));
}

at::Tensor ChunkList::join(const at::Tensor& x, at::ScalarType type) const {
  const int64_t B = sequences_, H = x.size(1), g = x.size(2), d = x.size(4);
  const auto options = x.options().dtype(type);
  if (uniform_ > 0) {
    const at::Tensor y = at::empty({B, steps(), size_, H, g, d}, options);
    y.copy_(x.view({steps(), B, H, g, size_, d}).permute({1, 0, 4, 2, 3, 5}));
    return y.view({B, steps() * size_, H * g, d}).slice(1, 0, uniform_).reshape({tokens_, H * g, d});
  }
  const at::Tensor y = at::empty({this->count(), size_, H, g, d}, options);
  y.copy_(x.permute({0, 3, 1, 2, 4}));
  return y.view({this->count() * size_, H * g, d}).index_select(0, where_);
}

cuda::Placement ChunkList::placement() const {
  return {pointer<int64_t>(places_), pointer<int64_t>(where_), uniform_, sequences_, tokens_, size_};
}

at::Tensor ChunkList::sorted(const at::Tensor& x) const {
  return uniform_ > 0 ? x : x.index_select(0, order_);
}
at::Tensor ChunkList::begins(const at::Tensor& states) const {
  return uniform_ > 0 ? states.slice(0, 0, this->count()) : states.index_select(0, begin_rows_);
}
at::Tensor ChunkList::finals(const at::Tensor& states) const {
  return uniform_ > 0 ? states.slice(0, this->count()) : states.index_select(0, final_rows_);
}
at::Tensor ChunkList::end_grads(const at::Tensor& grads) const {
  return uniform_ > 0 ? grads.slice(0, sequences_) : grads.index_select(0, end_grad_rows_);
}
at::Tensor ChunkList::initial_grads(const at::Tensor& grads) const {
  return uniform_ > 0 ? grads.slice(0, 0, sequences_) : grads.index_select(0, initial_grad_rows_);
}

}  // namespace oryx::ops
