#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include "ops/common/batched_products.h"
#include "ops/common/recurrence_aten.h"
#include "ops/common/recurrence_cuda.h"
#include "ops/common/tensors.h"
#include "ops/common/unit_lower_inverse.h"

namespace oryx::ops {

using at::Tensor;

#ifdef ORYX_CUDA
namespace {

template <typename T>
cuda::Matrices<T> matrices(const Tensor& x) {
  TORCH_INTERNAL_ASSERT(x.dim() == 3 && (x.stride(2) == 1 || x.size(2) == 1));
  using Element = std::remove_const_t<T>;
  return {mutable_pointer<Element>(x), x.size(0), x.size(1), x.size(2), x.stride(0), x.stride(1)};
}

// Calls work.operator()<T>() with the storage type of a fused recurrence.
template <typename Work>
void with_fused_type(at::ScalarType type, Work&& work) {
  if (type == at::kBFloat16)
    work.template operator()<Bf16>();
  else
    work.template operator()<float>();
}

void pass_states_fused(const RecurrenceChunks& x, const Tensor& A, const Tensor& states, const Tensor& before,
                       bool backward) {
  const Tensor contiguous = A.contiguous();
  const float* factors = pointer<float>(contiguous);
  cuda::pass_states({.first = pointer<int64_t>(x.list.uneven_firsts()),
                     .steps = x.list.steps(),
                     .chunks = x.list.count(),
                     .sequences = x.list.sequences(),
                     .heads = x.Hkv,
                     .Kd = x.Kd,
                     .Vd = x.Vd,
                     .M = x.delta ? factors : nullptr,
                     .factor = x.delta ? nullptr : factors,
                     .states = mutable_pointer<float>(states),
                     .backward = backward,
                     .before = before.defined() ? before.mutable_data_ptr() : nullptr,
                     .before_bf16 = before.defined() && before.scalar_type() == at::kBFloat16,
                     .before_batch = before.defined() ? before.stride(0) : 0});
}

void cut_fused(const RecurrenceChunks& x, const Tensor& from, const Tensor& row_of_token, const Tensor& to) {
  const Tensor rows = from.contiguous();
  const auto run = [&]<typename In, typename T>() {
    cuda::cut<In, T>(x.list.placement(), pointer<In>(rows), pointer<int64_t>(row_of_token), x.Hkv, matrices<T>(to));
  };
  if (to.scalar_type() == at::kBFloat16) return run.template operator()<Bf16, Bf16>();
  if (to.scalar_type() == at::kDouble) return run.template operator()<float, double>();
  return run.template operator()<float, float>();
}

// [rows, H group, dim] of the tokens that `read` names (undefined: all).
Tensor join_fused(const RecurrenceChunks& x, const Tensor& from, const Tensor& read, at::ScalarType type, double sign) {
  const int64_t rows = read.defined() ? read.numel() : x.list.tokens();
  const Tensor out = at::empty({rows, x.Hkv * from.size(1) / x.C, from.size(2)}, from.options().dtype(type));
  const auto run = [&]<typename In, typename T>() {
    cuda::join<In, T>(x.list.placement(), matrices<const In>(from), pointer<int64_t>(read), rows, x.Hkv,
                      static_cast<float>(sign), mutable_pointer<T>(out));
  };
  if (from.scalar_type() == at::kBFloat16)
    run.template operator()<Bf16, Bf16>();
  else if (type == at::kBFloat16)
    run.template operator()<float, Bf16>();
  else
    run.template operator()<float, float>();
  return out;
}

}  // namespace
#endif

void RecurrenceChunks::cut_rows(const Tensor& x, const Tensor& to) const {
#ifdef ORYX_CUDA
  if (fused) return cut_fused(*this, x, row_of_token, to);
#endif
  Tensor all = x;
  if (read) all = at::zeros({list.tokens(), H, x.size(2)}, x.options()).index_copy_(0, *read, x);
  list.cut(all.reshape({list.tokens(), Hkv, group, x.size(2)}), by_chunk(to));
}

void RecurrenceChunks::cut_keys(const Tensor& x, const Tensor& to) const {
#ifdef ORYX_CUDA
  if (fused) return cut_fused(*this, x, Tensor(), to);
#endif
  list.cut(x.unsqueeze(2), by_chunk(to));
}

Tensor RecurrenceChunks::join_rows(const Tensor& x) const {
#ifdef ORYX_CUDA
  if (fused) return join_fused(*this, x, or_undefined(read), type, 1);
#endif
  const Tensor all = list.join(by_chunk(x), type);
  return read ? all.index_select(0, *read) : all;
}

Tensor RecurrenceChunks::join_keys(const Tensor& x, at::ScalarType to, double sign) const {
#ifdef ORYX_CUDA
  if (fused) return join_fused(*this, x, Tensor(), to, sign);
#endif
  const Tensor all = list.join(by_chunk(x), to);
  return sign == 1 ? all : all.mul(sign);
}

bool RecurrenceChunks::can_fuse(const Tensor& q, int64_t Kd) {
#ifdef ORYX_CUDA
  return q.is_cuda() && q.scalar_type() != at::kDouble && cuda::can_pass(Kd);
#else
  static_cast<void>(q), static_cast<void>(Kd);
  return false;
#endif
}

void RecurrenceChunks::decay_scores(const Tensor& to, const Tensor& scores, bool weighted, int64_t strict) const {
#ifdef ORYX_CUDA
  if (fused) {
    with_fused_type(to.scalar_type(), [&]<typename T>() {
      cuda::decay_scores<T>(matrices<const float>(scores), pointer<double>(G), weighted ? pointer<float>(w) : nullptr,
                            strict, matrices<T>(to));
    });
    return;
  }
#endif
  scale_rows(to, scores, weighted ? Dw : D);
  if (strict < scores.size(1)) to.slice(1, strict).diagonal(0, 1, 2).zero_();
}

void RecurrenceChunks::inverse(const Tensor& to, const Tensor& scores) const {
#ifdef ORYX_CUDA
  if (fused) {
    with_fused_type(to.scalar_type(), [&]<typename T>() {
      cuda::unit_lower_inverse<T>(matrices<const float>(scores), pointer<double>(G), pointer<float>(w),
                                  matrices<T>(to));
    });
    return;
  }
#endif
  Tensor N = empty_block_matrices(Z, C, w.options());
  at::mul_out(N, scores, Dw);
  to.copy_(unit_lower_inverse(N));
}

Tensor RecurrenceChunks::scaled(const Tensor& x, const Tensor& factor, const std::optional<Tensor>& second,
                                double sign) const {
  const Tensor out = at::empty(x.sizes(), x.options().dtype(type));
  scale_rows(out, x, factor, second, sign);
  return out;
}

void RecurrenceChunks::scale_rows(const Tensor& to, const Tensor& x, const Tensor& factor,
                                  const std::optional<Tensor>& second, double sign) const {
#ifdef ORYX_CUDA
  if (fused) {
    const auto run = [&]<typename In, typename T>() {
      cuda::scale_rows<In, T>(matrices<const In>(x), C, pointer<float>(factor),
                              second ? pointer<float>(*second) : nullptr, static_cast<float>(sign), matrices<T>(to));
    };
    if (to.scalar_type() == at::kFloat) return run.template operator()<float, float>();
    if (x.scalar_type() == at::kFloat) return run.template operator()<float, Bf16>();
    return run.template operator()<Bf16, Bf16>();
  }
#endif
  Tensor all = second ? factor.mul(*second) : factor, out = by_head(to);
  if (sign != 1) all = all.mul(sign);
  at::mul_out(out, by_head(x), all.unsqueeze(1));
}

Tensor RecurrenceChunks::row_sums(const Tensor& a, const Tensor& b) const {
#ifdef ORYX_CUDA
  if (fused) {
    const Tensor sums = at::empty({a.size(0), a.size(1), 1}, b.options());
    with_fused_type(a.scalar_type(), [&]<typename T>() {
      cuda::row_dots<T>(matrices<const T>(a), matrices<const float>(b), mutable_pointer<float>(sums));
    });
    return sums;
  }
#endif
  return a.mul(b).sum(-1, /*keepdim=*/true);
}

Tensor RecurrenceChunks::transitions(const Tensor& minus_W, const Tensor& keys, bool backward) const {
  if (!delta) return last;
  // The fused pass reads them transposed.
  Tensor A = backward != fused ? product(minus_W.transpose(1, 2), keys) : product(keys.transpose(1, 2), minus_W);
  A.diagonal(0, 1, 2).add_(last.squeeze(2));
  return A;
}

void RecurrenceChunks::pass_states(const Tensor& A, const Tensor& all, const Tensor& before, bool from_zero) const {
  const Tensor states = all.view({all.size(0) * Hkv, Kd, Vd});
#ifdef ORYX_CUDA
  if (fused) return pass_states_fused(*this, A, states, before, false);
#endif
  for (int64_t step = from_zero ? 1 : 0; step < list.steps(); ++step) {
    const int64_t begin = list.first(step) * Hkv, n = list.count(step) * Hkv, B = list.sequences() * Hkv;
    const Tensor last_one = states.narrow(0, step == 0 ? 0 : B + list.first(step - 1) * Hkv, n);
    Tensor after = states.narrow(0, B + begin, n);
    if (delta)
      at::baddbmm_out(after, after, A.narrow(0, begin, n), last_one);
    else
      at::addcmul_out(after, after, A.narrow(0, begin, n), last_one);
  }
  before.view({list.count(), Hkv, Kd, Vd}).copy_(list.begins(all));
}

void RecurrenceChunks::pass_gradients(const Tensor& A, const Tensor& grads) const {
#ifdef ORYX_CUDA
  if (fused) return pass_states_fused(*this, A, grads, Tensor(), true);
#endif
  const auto step_back = [&](int64_t chunk, int64_t from, int64_t n) {
    if (n == 0) return;
    const Tensor a = A.narrow(0, chunk * Hkv, n * Hkv), after = grads.narrow(0, from * Hkv, n * Hkv);
    Tensor before = grads.narrow(0, chunk * Hkv, n * Hkv);
    if (delta)
      at::baddbmm_out(before, before, a, after);
    else
      at::addcmul_out(before, before, a, after);
  };
  for (int64_t step = list.steps() - 1; step >= 0; --step) {
    const int64_t first = list.first(step), n = list.count(step), go_on = list.next_count(step);
    if (step + 1 < list.steps()) step_back(first, list.first(step + 1), go_on);
    step_back(first + go_on, list.count() + go_on, n - go_on);  // sequences that end here
  }
}

}  // namespace oryx::ops
