#pragma once

// The library's fused attention on packed sequences: cuDNN's kernel, the faster one, on dense batches of one length,
// and FlashAttention on ragged ones. Either way the rows that are read stand among rows for the tokens around them, so
// that the kernel's causal mask says what they see: rows that nobody reads are zero, as are their gradients, and so
// they give keys and values nothing. Included by aten.cpp only.

#include <ATen/SDPBackend.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "ops/common/packing.h"

namespace oryx::ops {

class FusedAttention {
 public:
  // The kernels take bfloat16 and head dims up to 256, and assume a positive scale.
  static bool takes(const at::Tensor& q, const at::Tensor& v, double scale) {
    return q.is_cuda() && q.scalar_type() == at::kBFloat16 && q.numel() > 0 && q.size(2) <= 256 && v.size(2) <= 256 &&
           scale > 0;
  }

  FusedAttention(const Packing& packing, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale)
      : scale_(scale), key_dim_(q.size(2)), value_dim_(v.size(2)), sequences_(packing.sequences()) {
    const auto windows = packing.derive<Windows>("windows", at::kCPU, [&] { return Windows(packing); });
    longest_ = windows->longest, widest_ = windows->widest, uniform_ = windows->uniform;
    // cuDNN makes and keeps a plan for each shape it meets: only long sequences are worth one, and lengths are rounded.
    length_ = (longest_ + kRound - 1) / kRound * kRound;
    const double dense_work = static_cast<double>(sequences_ * length_) * static_cast<double>(length_);
    dense_ = longest_ >= kLong && dense_work <= kDenseSpeed * windows->work && prefers_cudnn(q, k, v);
    rows_ = dense_ ? packing.num_tokens() : windows->ends.back();
    const auto on_device = [&](const char* name, auto&& make) {
      return *packing.derive<at::Tensor>(name, q.device(), make);
    };
    if (rows_ != packing.num_rows())
      slots_ = dense_ ? packing.read_on(q.device())
                      : on_device("window slots", [&] { return upload(windows->slots, q.device()); });
    if (!dense_) {
      row_ends_ = on_device("window ends", [&] { return upload(windows->ends, q.device()).to(at::kInt); });
      key_ends_ = on_device("key ends", [&] { return upload(packing.tokens, q.device()).to(at::kInt); });
    } else if (!uniform_) {
      places_ = on_device("padded places", [&] { return upload(padded_places(packing), q.device()); });
    }
  }

  struct Kept {
    at::Tensor q, k, v, o, lse, seed, offset;  // as the kernel takes and gives them
  };

  Kept forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool keep) const {
    Kept r{place(spread(q)), place(k), place(v), {}, {}, {}, {}};
    if (dense_) {
      const auto out = at::_scaled_dot_product_cudnn_attention(r.q, r.k, r.v, std::nullopt, keep, 0.0,
                                                               /*is_causal=*/true, /*return_debug_mask=*/false, scale_);
      r.o = std::get<0>(out), r.lse = std::get<1>(out), r.seed = std::get<6>(out), r.offset = std::get<7>(out);
    } else {
      std::tie(r.o, r.lse, r.seed, r.offset, std::ignore) =
          at::_flash_attention_forward(r.q, r.k, r.v, row_ends_, key_ends_, widest_, longest_, 0.0,
                                       /*is_causal=*/true, /*return_debug_mask=*/false, scale_);
    }
    return r;
  }
  at::Tensor output(const Kept& r) const { return gather(unplace(r.o, value_dim_)); }

  // Gradients of q, k and v.
  std::vector<at::Tensor> backward(const Kept& r, const at::Tensor& grad_o) const {
    const at::Tensor grad = place(spread(grad_o));
    at::Tensor dq, dk, dv;
    if (dense_)
      std::tie(dq, dk, dv) =
          at::_scaled_dot_product_cudnn_attention_backward(grad, r.q, r.k, r.v, r.o, r.lse, r.seed, r.offset, {}, {},
                                                           {}, length_, length_, 0.0, /*is_causal=*/true, scale_);
    else
      std::tie(dq, dk, dv) =
          at::_flash_attention_backward(grad, r.q, r.k, r.v, r.o, r.lse, row_ends_, key_ends_, widest_, longest_, 0.0,
                                        /*is_causal=*/true, r.seed, r.offset, scale_);
    return {gather(unplace(dq, key_dim_)), unplace(dk, key_dim_), unplace(dv, value_dim_)};
  }

 private:
  // FlashAttention aligns the last row with the last key: rows go from the first that is read to the last token.
  struct Windows {
    std::vector<int64_t> ends{0}, slots;  // of the rows that are read, among all
    int64_t longest = 0, widest = 0;
    bool uniform = true;
    double work = 0;

    explicit Windows(const Packing& packing) {
      for (int64_t b = 0; b < packing.sequences(); ++b) {
        const int64_t begin = packing.tokens[b], end = packing.tokens[b + 1], length = end - begin;
        const int64_t row = packing.rows[b], first = row < packing.rows[b + 1] ? packing.token_of(row) : end;
        for (int64_t r = row; r < packing.rows[b + 1]; ++r) slots.push_back(ends.back() + packing.token_of(r) - first);
        ends.push_back(ends.back() + end - first);
        longest = std::max(longest, length), widest = std::max(widest, end - first);
        uniform &= length == packing.tokens[1];
        work += static_cast<double>(end - first) * static_cast<double>(length + first - begin);
      }
    }
  };

  std::vector<int64_t> padded_places(const Packing& packing) const {
    std::vector<int64_t> places;
    for (int64_t b = 0; b < sequences_; ++b)
      for (int64_t t = packing.tokens[b]; t < packing.tokens[b + 1]; ++t)
        places.push_back(b * length_ + t - packing.tokens[b]);
    return places;
  }

  static constexpr int64_t kLong = 512, kRound = 128;
  static constexpr double kDenseSpeed = 1.6;  // of cuDNN against FlashAttention, on Hopper

  // What the library would choose by itself for such heads: the card, its cuDNN and the user's settings decide.
  bool prefers_cudnn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
    if (key_dim_ != value_dim_ || key_dim_ % 8 != 0 || key_dim_ > 128) return false;
    const auto like = [](const at::Tensor& x) { return x.new_empty({1, x.size(1), 8, x.size(2)}); };
    return at::_fused_sdp_choice(like(q), like(k), like(v), std::nullopt, 0.0, /*is_causal=*/true, scale_,
                                 /*enable_gqa=*/q.size(1) != k.size(1)) ==
           static_cast<int64_t>(at::SDPBackend::cudnn_attention);
  }

  // Read rows to all the kernel's rows, and back.
  at::Tensor spread(const at::Tensor& x) const {
    if (!slots_.defined()) return x;
    return at::zeros({rows_, x.size(1), x.size(2)}, x.options()).index_copy_(0, slots_, x);
  }
  at::Tensor gather(const at::Tensor& x) const { return slots_.defined() ? x.index_select(0, slots_) : x; }

  // Packed [n, heads, dim] as the kernel wants it, and back: [B, heads, length, dim], or packed with the dims padded to
  // one multiple of 8.
  at::Tensor place(const at::Tensor& x) const {
    const int64_t h = x.size(1), d = x.size(2);
    if (!dense_) {
      const int64_t dim = (std::max(key_dim_, value_dim_) + 7) / 8 * 8;
      return dim == d ? x.contiguous() : at::constant_pad_nd(x, {0, dim - d});
    }
    if (!uniform_) {
      const at::Tensor y = at::zeros({sequences_ * length_, h, d}, x.options()).index_copy_(0, places_, x);
      return y.view({sequences_, length_, h, d}).transpose(1, 2);
    }
    at::Tensor y = x.contiguous().view({sequences_, longest_, h, d});
    if (length_ != longest_) y = at::constant_pad_nd(y, {0, 0, 0, 0, 0, length_ - longest_});
    return y.transpose(1, 2);
  }
  at::Tensor unplace(const at::Tensor& x, int64_t dim) const {
    if (!dense_) return x.size(2) == dim ? x : x.slice(2, 0, dim).contiguous();
    const at::Tensor y = x.transpose(1, 2);
    if (!uniform_) return y.reshape({sequences_ * length_, y.size(2), dim}).index_select(0, places_);
    return y.slice(1, 0, longest_).reshape({sequences_ * longest_, y.size(2), dim});
  }

  const double scale_;
  const int64_t key_dim_, value_dim_, sequences_;
  bool uniform_ = true, dense_ = false;
  int64_t longest_ = 0, widest_ = 0, length_ = 0, rows_ = 0;
  at::Tensor slots_, places_, row_ends_, key_ends_;
};

}  // namespace oryx::ops
