#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/attention/fused.h"
#include "ops/attention/op.h"
#include "ops/attention/rotated.h"
#include "ops/common/packing.h"
#include "ops/common/tensors.h"
#include "ops/rope/op.h"

namespace oryx::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of a block. Its logits, for all heads and keys, are the largest thing in memory: linear in the tokens.
constexpr int64_t kRows = 128;

// A block of query rows of one sequence and the keys they see.
struct Block {
  int64_t row_begin, row_end, key_begin, key_end;
  int64_t rows() const { return row_end - row_begin; }
};

template <typename Work>
void for_blocks(const Packing& packing, Work&& work) {
  for (int64_t b = 0; b < packing.sequences(); ++b)
    for (int64_t r = packing.rows[b]; r < packing.rows[b + 1]; r += kRows) {
      const int64_t end = std::min(r + kRows, packing.rows[b + 1]);
      work(Block{r, end, packing.tokens[b], packing.token_of(end - 1) + 1});
    }
}

// The tensors of a call in the accumulation type, cut into blocks.
class Cutter {
 public:
  Cutter(const Tensor& q, const Tensor& k, const Packing& packing)
      : kv_heads_(k.size(1)),
        group_(q.size(1) / k.size(1)),
        acc_(accumulate_type(q.scalar_type())),
        read_(packing.read.empty() ? Tensor() : packing.read_on(q.device())) {}

  // Rows of x [R, H, dim] as [Hkv, rows * group, dim]: the heads that share a key are rows of one matrix.
  Tensor rows(const Tensor& x, const Block& block) const {
    return x.slice(0, block.row_begin, block.row_end)
        .to(acc_)
        .reshape({block.rows(), kv_heads_, group_, x.size(2)})
        .transpose(0, 1)
        .reshape({kv_heads_, block.rows() * group_, x.size(2)});
  }
  // And back: [rows, H, dim].
  Tensor unstacked(const Tensor& x, const Block& block) const {
    return x.view({kv_heads_, block.rows(), group_, x.size(2)})
        .transpose(0, 1)
        .reshape({block.rows(), kv_heads_ * group_, x.size(2)});
  }
  // Keys or values [N, Hkv, dim] as [Hkv, keys, dim].
  Tensor keys(const Tensor& x, const Block& block) const {
    return x.slice(0, block.key_begin, block.key_end).to(acc_).transpose(0, 1);
  }
  // [Hkv, rows * group, keys], -inf where a key comes after the row's token.
  Tensor logits(const Tensor& q, const Tensor& k, double scale, const Block& block) const {
    Tensor s = at::bmm(q, k.transpose(1, 2)).mul_(scale);
    const auto index = k.options().dtype(at::kLong);
    const Tensor token = read_.defined() ? read_.slice(0, block.row_begin, block.row_end)
                                         : at::arange(block.row_begin, block.row_end, index);
    const Tensor future = at::arange(block.key_begin, block.key_end, index).gt(token.unsqueeze(1));
    s.view({kv_heads_, block.rows(), group_, s.size(2)})
        .masked_fill_(future.view({1, block.rows(), 1, s.size(2)}), -INFINITY);
    return s;
  }

 private:
  const int64_t kv_heads_, group_;
  const at::ScalarType acc_;
  const Tensor read_;  // undefined: every token
};

struct AttentionAtenFunction : torch::autograd::Function<AttentionAtenFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& cu_seqlens, const std::optional<Tensor>& read_index, double scale) {
    const auto packing = shared_packing("oryx::attention", cu_seqlens, read_index, k.size(0));
    const Cutter cut(q, k, *packing);
    Tensor o = at::empty({q.size(0), q.size(1), v.size(2)}, q.options());
    for_blocks(*packing, [&](const Block& block) {
      const Tensor p = at::softmax(cut.logits(cut.rows(q, block), cut.keys(k, block), scale, block), 2);
      const Tensor out = at::bmm(p, cut.keys(v, block));
      o.slice(0, block.row_begin, block.row_end).copy_(cut.unstacked(out, block));
    });
    ctx->saved_data["scale"] = scale;
    ctx->save_for_backward({q, k, v, cu_seqlens, or_undefined(read_index)});
    return o;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("oryx::attention");
    const auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const auto read_index = saved[4].defined() ? std::optional(saved[4]) : std::nullopt;
    const auto packing = shared_packing("oryx::attention", saved[3], read_index, k.size(0));
    const double scale = ctx->saved_data["scale"].toDouble();
    const auto acc = accumulate_type(q.scalar_type());
    const Cutter cut(q, k, *packing);
    const bool want_q = ctx->needs_input_grad(0), want_k = ctx->needs_input_grad(1), want_v = ctx->needs_input_grad(2);
    Tensor grad_q = want_q ? at::empty(q.sizes(), q.options()) : Tensor();
    Tensor grad_k = want_k ? at::zeros(k.sizes(), k.options().dtype(acc)) : Tensor();
    Tensor grad_v = want_v ? at::zeros(v.sizes(), v.options().dtype(acc)) : Tensor();
    for_blocks(*packing, [&](const Block& block) {
      const Tensor Q = cut.rows(q, block), K = cut.keys(k, block), dO = cut.rows(grads[0], block);
      const Tensor p = at::softmax(cut.logits(Q, K, scale, block), 2);
      if (want_v) cut.keys(grad_v, block).add_(at::bmm(p.transpose(1, 2), dO));
      if (!want_q && !want_k) return;
      const Tensor dp = at::bmm(dO, cut.keys(v, block).transpose(1, 2));
      const Tensor ds = at::_softmax_backward_data(dp, p, 2, acc).mul_(scale);
      if (want_k) cut.keys(grad_k, block).add_(at::bmm(ds.transpose(1, 2), Q));
      if (want_q) grad_q.slice(0, block.row_begin, block.row_end).copy_(cut.unstacked(at::bmm(ds, K), block));
    });
    const auto type = q.scalar_type();
    return {grad_q, want_k ? grad_k.to(type) : grad_k, want_v ? grad_v.to(type) : grad_v, Tensor(), Tensor(), Tensor()};
  }
};

struct FusedAttentionFunction : torch::autograd::Function<FusedAttentionFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& cu_seqlens, const std::optional<Tensor>& read_index, double scale) {
    const auto packing = shared_packing("oryx::attention", cu_seqlens, read_index, k.size(0));
    const FusedAttention fused(*packing, q, k, v, scale);
    const auto r = fused.forward(q, k, v, /*keep=*/true);
    ctx->saved_data["scale"] = scale;
    ctx->save_for_backward(
        {q, k, v, cu_seqlens, or_undefined(read_index), r.q, r.k, r.v, r.o, r.lse, r.seed, r.offset});
    return fused.output(r);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("oryx::attention");
    const auto s = ctx->get_saved_variables();
    const auto read_index = s[4].defined() ? std::optional(s[4]) : std::nullopt;
    const auto packing = shared_packing("oryx::attention", s[3], read_index, s[1].size(0));
    const FusedAttention fused(*packing, s[0], s[1], s[2], ctx->saved_data["scale"].toDouble());
    auto out = fused.backward({s[5], s[6], s[7], s[8], s[9], s[10], s[11]}, grads[0]);
    return {out[0], out[1], out[2], Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor attention_aten(const Tensor& q_in, const Tensor& k_in, const Tensor& v, const Tensor& cu_seqlens,
                      const std::optional<Tensor>& read_index, double scale, double rope_base) {
  const auto packing = check_attention(q_in, k_in, v, cu_seqlens, read_index, scale, rope_base);
  const auto [q, k] = rope_base > 0 ? rotated(rope, q_in, k_in, *packing, rope_base) : std::pair(q_in, k_in);
  if (!FusedAttention::takes(q, v, scale)) return AttentionAtenFunction::apply(q, k, v, cu_seqlens, read_index, scale);
  if (wants_graph(q, k, v)) return FusedAttentionFunction::apply(q, k, v, cu_seqlens, read_index, scale);
  const c10::NoGradGuard no_grad;
  const FusedAttention fused(*packing, q, k, v, scale);
  return fused.output(fused.forward(q, k, v, /*keep=*/false));
}

}  // namespace oryx::ops
