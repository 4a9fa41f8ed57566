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

namespace oryx::ops {

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

at::Tensor ChunkList::cut(const at::Tensor& x) const {
  const int64_t H = x.size(1), d = x.size(2);
  if (uniform_ > 0) {
    at::Tensor y = x.reshape({sequences_, uniform_, H, d});
    if (uniform_ % size_ != 0) y = at::constant_pad_nd(y, {0, 0, 0, 0, 0, size_ - uniform_ % size_});
    return y.view({sequences_, steps(), size_, H, d})
        .permute({1, 0, 3, 2, 4})
        .contiguous()
        .view({this->count(), H, size_, d});
  }
  const at::Tensor padded = at::cat({x, at::zeros({1, H, d}, x.options())});
  return padded.index_select(0, places_).view({this->count(), size_, H, d}).transpose(1, 2).contiguous();
}

at::Tensor ChunkList::join(const at::Tensor& x, at::ScalarType type) const {
  const int64_t H = x.size(1), d = x.size(3);
  const auto options = x.options().dtype(type);
  if (uniform_ > 0) {
    const at::Tensor y = at::empty({sequences_, steps(), size_, H, d}, options);
    y.copy_(x.view({steps(), sequences_, H, size_, d}).permute({1, 0, 3, 2, 4}));
    return y.view({sequences_, steps() * size_, H, d}).slice(1, 0, uniform_).reshape({tokens_, H, d});
  }
  const at::Tensor y = at::empty({this->count(), size_, H, d}, options);
  y.copy_(x.transpose(1, 2));
  return y.view({-1, H, d}).index_select(0, where_);
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
