#include <ATen/ATen.h>

#include <algorithm>

#include "ops/common/packing.h"
#include "ops/common/recurrence.h"

namespace oryx::ops {
namespace {

// [B, L] packed token of each padded place, N (one past the last) where there is none; L a multiple of the chunk.
at::Tensor padded_tokens(const Packing& packing, at::Device device) {
  const int64_t B = packing.sequences(), N = packing.num_tokens();
  int64_t longest = 1;
  for (int64_t b = 0; b < B; ++b) longest = std::max(longest, packing.tokens[b + 1] - packing.tokens[b]);
  const int64_t L = (longest + kChunk - 1) / kChunk * kChunk;
  at::Tensor places = at::full({B, L}, N, at::kLong);
  auto row = places.accessor<int64_t, 2>();
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = packing.tokens[b]; t < packing.tokens[b + 1]; ++t) row[b][t - packing.tokens[b]] = t;
  return places.to(device);
}

}  // namespace

// The mathematics of ops/common/chunk_scan.h on dense [B, Hkv, chunks, C, dim] tensors, in the WY form: both right
// sides of the triangular system, w v and w e k, are solved for all chunks at once, and only the states go one by one.
// Sequences are padded to the longest; padding has k = v = g = w = 0 and leaves the state as it is.
RecurrenceResult recurrence_aten(const RecurrenceKind& kind, const RecurrenceInputs& in) {
  check_recurrence(kind, in);
  const Packing packing = make_packing(kind.op, in.cu_seqlens, in.read_index, in.k.size(0));
  const int64_t B = packing.sequences(), N = packing.num_tokens(), H = in.q.size(1), Hkv = in.k.size(1);
  const int64_t Kd = in.k.size(2), Vd = in.v.size(2), R = packing.num_rows();
  const auto acc = accumulate_type(in.q.scalar_type());
  const at::Tensor places = padded_tokens(packing, in.q.device());
  const int64_t L = places.size(1), chunks = L / kChunk;
  const at::Tensor flat = places.flatten();

  const auto dense = [&](const at::Tensor& x, int64_t heads) {  // [N, heads, d] to [B, heads, chunks, C, d]
    const at::Tensor padded = at::cat({x.to(acc), at::zeros({1, heads, x.size(2)}, x.options().dtype(acc))});
    return padded.index_select(0, flat).view({B, chunks, kChunk, heads, x.size(2)}).permute({0, 3, 1, 2, 4});
  };
  at::Tensor q = in.q.to(acc);
  if (in.read_index) q = at::zeros({N, H, Kd}, q.options()).index_copy(0, *in.read_index, q);
  const at::Tensor Q = dense(q, H).reshape({B, Hkv, H / Hkv, chunks, kChunk, Kd});
  const at::Tensor K = dense(in.k, Hkv), V = dense(in.v, Hkv);
  const at::Tensor w = dense(in.w.unsqueeze(-1), Hkv);  // [B, Hkv, chunks, C, 1]
  const at::Tensor G = dense(in.g.unsqueeze(-1), Hkv).to(at::kDouble).clamp_min(-1000.0).cumsum(3);
  const at::Tensor future = at::ones({kChunk, kChunk}, K.options().dtype(at::kBool)).triu(1);
  const at::Tensor D = (G - G.transpose(-1, -2)).masked_fill(future, -INFINITY).exp().to(acc);
  const at::Tensor e = G.exp().to(acc), f = (G.slice(3, kChunk - 1) - G).exp().to(acc);
  at::Tensor U = w * V, W;
  if (kind.delta) {
    const at::Tensor M = (w * K.matmul(K.transpose(-1, -2)) * D).tril(-1);
    const at::Tensor X = at::linalg_solve_triangular(M, at::cat({U, w * e * K}, -1), /*upper=*/false, /*left=*/true,
                                                     /*unitriangular=*/true);
    U = X.slice(-1, 0, Vd);
    W = X.slice(-1, Vd);
  }
  const at::Tensor Kf = (K * f).transpose(-1, -2), last = e.slice(3, kChunk - 1);
  at::Tensor S = in.initial_state ? *in.initial_state : at::zeros({B, Hkv, Kd, Vd}, K.options());
  std::vector<at::Tensor> states, updates;
  for (int64_t c = 0; c < chunks; ++c) {
    at::Tensor u = U.select(2, c);
    if (kind.delta) u = u - W.select(2, c).matmul(S);
    states.push_back(S);
    updates.push_back(u);
    S = last.select(2, c) * S + Kf.select(2, c).matmul(u);
  }
  const at::Tensor S0 = at::stack(states, 2).unsqueeze(2);  // [B, Hkv, 1, chunks, Kd, Vd]
  const at::Tensor B_qk = Q.matmul(K.unsqueeze(2).transpose(-1, -2)) * D.unsqueeze(2);
  const at::Tensor O = (e.unsqueeze(2) * Q).matmul(S0) + B_qk.matmul(at::stack(updates, 2).unsqueeze(2));
  at::Tensor o = O.permute({0, 3, 4, 1, 2, 5}).reshape({B * L, H, Vd});
  // Where each row's token went: places, inverted.
  const at::Tensor where =
      at::empty({N + 1}, flat.options()).index_put({flat}, at::arange(B * L, flat.options())).slice(0, 0, N);
  o = o.index_select(0, in.read_index ? where.index_select(0, *in.read_index) : where);
  TORCH_INTERNAL_ASSERT(o.size(0) == R);
  return {o.to(in.q.scalar_type()), S};
}

}  // namespace oryx::ops
