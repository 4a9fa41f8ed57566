#pragma once

// Forward pass of attention for the sequences that few query rows read: decoding. Bound by the memory that keys and
// values come from, so all heads of a key are taken while its row streams by. Included by cpu.cpp only.

#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "ops/attention/row_math.h"
#include "ops/common/gemm.h"
#include "ops/common/rotation.h"

namespace oryx::ops::ORYX_ISA {

template <typename T>
class FewRowsUnit {
  using A = Arithmetic<T>;
  static constexpr int64_t C = kAttentionKeys,
                           kKeys = 4;  // keys taken at once: one row's stream alone does not fill the memory's time
  static constexpr A kLowest = std::numeric_limits<A>::lowest();

 public:
  explicit FewRowsUnit(const AttentionForward& args)
      : args_(args),
        kw_(padded<A>(args.key_dim)),
        vw_(padded<A>(args.value_dim)),
        group_(args.heads / args.kv_heads),
        scratch_(kFewRows * args.kv_heads * (kw_ + vw_ + C + 2) + kKeys * kw_ + C) {
    const int64_t rows = kFewRows * args.kv_heads;
    q_ = scratch_.get(), o_ = q_ + rows * kw_, s_ = o_ + rows * vw_, k_ = s_ + rows * C, column_ = k_ + kKeys * kw_;
    max_ = column_ + C, sum_ = max_ + rows;
    for (int64_t j = 0; j < C; ++j) column_[j] = static_cast<A>(j);
    if (args.rope_base > 0) rotations_ = std::make_unique<Rotations<A>>(args.key_dim, args.rope_base);
  }

  void run(const AttentionSegment& unit) {
    if (unit.sequence != unit_.sequence) load_queries(unit.sequence);
    unit_ = unit;
    const int64_t n = unit.key_end - unit.key_begin;
    by_keys(n, [&]<int Keys>(int64_t j) { logits<Keys>(j); });
    for (int64_t i = 0; i < all_; ++i) softmax(i, token(i % count_) - unit.key_begin + 1, n);
    fill_zero(o_, all_ * vw_);
    by_keys(n, [&]<int Keys>(int64_t j) { values<Keys>(j); });
    for (int64_t i = 0; i < all_; ++i) emit(i);
  }

 private:
  template <typename Work>
  static void by_keys(int64_t n, Work&& work) {
    int64_t j = 0;
    for (; j + kKeys <= n; j += kKeys) work.template operator()<kKeys>(j);
    for (; j < n; ++j) work.template operator()<1>(j);
  }

  // Row i of all: stacked row i % count of key/value head i / count.
  int64_t row(int64_t stacked) const { return args_.rows[unit_.sequence] + stacked / group_; }
  int64_t token(int64_t stacked) const { return args_.read ? args_.read[row(stacked)] : row(stacked); }
  int64_t place(int64_t i) const { return row(i % count_) * args_.heads + i / count_ * group_ + i % count_ % group_; }

  void load_queries(int64_t sequence) {
    unit_.sequence = sequence;
    count_ = (args_.rows[sequence + 1] - args_.rows[sequence]) * group_, all_ = count_ * args_.kv_heads;
    for (int64_t stacked = 0; stacked < count_; ++stacked) {
      if (rotations_) rotations_->go_to(token(stacked) - args_.tokens[sequence]);
      for (int64_t i = stacked; i < all_; i += count_)
        load(static_cast<const T*>(args_.q) + place(i) * args_.key_dim, q_ + i * kw_);
    }
  }
  // A query or key in the type of arithmetic, rotated, zeros behind.
  void load(const T* src, A* dst, int slot = 0) const {
    if (!rotations_) return load_padded(src, args_.key_dim, dst);
    rotate_row(src, args_.key_dim / 2, rotations_->sine(slot), rotations_->cosine(slot), dst);
    for (int64_t d = args_.key_dim; d < kw_; ++d) dst[d] = 0;
  }

  // All heads of packed token t.
  const T* at(const void* tensor, int64_t t, int64_t dim) const {
    return static_cast<const T*>(tensor) + t * args_.kv_heads * dim;
  }
  // Four lines at a time, perhaps a few more than the row has.
  void prefetch(const T* row, int64_t dim) const {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    for (int64_t d = 0; d < dim; d += 4 * kLine)
      for (int64_t line = 0; line < 4; ++line) __builtin_prefetch(row + d + line * kLine);
  }

  // Keys [j, j + Keys) in all heads and rows.
  template <int Keys>
  void logits(int64_t j) {
    const int64_t Kd = args_.key_dim, t = unit_.key_begin + j, stride = args_.kv_heads * Kd;
    const T* keys = at(args_.k, t, Kd);
    const T* next = t + 2 * Keys <= unit_.key_end ? keys + Keys * stride : nullptr;
    for (int x = 0; rotations_ && x < Keys; ++x) rotations_->go_to(t + x - args_.tokens[unit_.sequence], x);
    for (int64_t c = 0; c < args_.kv_heads; ++c) {
      if (next)
        for (int x = 0; x < Keys; ++x) prefetch(next + x * stride + c * Kd, Kd);
      if (rotations_ && count_ == 1) {
        put_logits(c, j, rotated_products<Keys>(keys + c * Kd, stride, q_ + c * kw_));
        continue;
      }
      const A* loaded[Keys];
      for (int x = 0; x < Keys; ++x) {
        const T* key = keys + x * stride + c * Kd;
        if (std::is_same_v<T, A> && !rotations_ && kw_ == Kd) {
          loaded[x] = reinterpret_cast<const A*>(key);
        } else {
          load(key, k_ + x * kw_, x);
          loaded[x] = k_ + x * kw_;
        }
      }
      for (int64_t i = c * count_; i < (c + 1) * count_; ++i) {
        std::array<Vec<A>, Keys> sums;
        for (int x = 0; x < Keys; ++x) sums[x] = products<A>(kw_, q_ + i * kw_, loaded[x]);
        put_logits(i, j, sums);
      }
    }
  }

  // Vectors whose sums are the products of a query and Keys keys, which are turned on the way: one row reads them.
  template <int Keys>
  std::array<Vec<A>, Keys> rotated_products(const T* keys, int64_t stride, const A* q) const {
    const int64_t half = args_.key_dim / 2;
    std::array<Vec<A>, Keys> sums{};
    for_vectors<A>(half, [&](int64_t d, auto size) {
      const Vec<A> q_first = get(q + d, size), q_second = get(q + half + d, size);
      for (int x = 0; x < Keys; ++x) {
        const T* key = keys + x * stride + d;
        const Vec<A> first = get(key, size), second = get(key + half, size);
        const Vec<A> cosine = vload(rotations_->cosine(x) + d), sine = vload(rotations_->sine(x) + d);
        sums[x] += q_first * (first * cosine - second * sine);
        sums[x] += q_second * (second * cosine + first * sine);
      }
    });
    return sums;
  }

  // Of row i with keys [j, j + n).
  template <size_t n>
  void put_logits(int64_t i, int64_t j, const std::array<Vec<A>, n>& sums) {
    if constexpr (n == 4) {
      A out[4];
      sum_four<A>(sums.data(), out);
      for (int x = 0; x < 4; ++x) s_[i * C + j + x] = out[x];
    } else {
      for (size_t x = 0; x < n; ++x) s_[i * C + j + static_cast<int64_t>(x)] = vsum<A>(sums[x]);
    }
  }

  // Row i sees the first `visible` of n keys.
  void softmax(int64_t i, int64_t visible, int64_t n) {
    A* s = s_ + i * C;
    const A scale = static_cast<A>(args_.scale);
    const Vec<A> limit = splat(static_cast<A>(visible < n ? visible : n));
    Vec<A> tops = splat(kLowest), total{};
    for (int64_t j = 0; j < n; j += kLanes<A>) {
      const Vec<A> x = vload(s + j) * scale;
      tops = vmax(tops, vload(column_ + j) < limit ? x : splat(kLowest));
    }
    A top = tops[0];
    for (int l = 1; l < kLanes<A>; ++l) top = tops[l] > top ? tops[l] : top;
    for (int64_t j = 0; j < n; j += kLanes<A>) {
      const Vec<A> p = vexp(below(vload(s + j), scale, top));
      vstore(s + j, vload(column_ + j) < limit ? p : Vec<A>{});
      total += vload(s + j);
    }
    max_[i] = top, sum_[i] = vsum<A>(total);
  }

  // Adds keys [j, j + Keys) to the outputs of all heads.
  template <int Keys>
  void values(int64_t j) {
    const int64_t Vd = args_.value_dim, t = unit_.key_begin + j;
    const T* next = t + 2 * Keys <= unit_.key_end ? at(args_.v, t + Keys, Vd) : nullptr;
    const int64_t stride = args_.kv_heads * Vd;
    for (int64_t c = 0; c < args_.kv_heads; ++c) {
      const T* v = at(args_.v, t, Vd) + c * Vd;
      if (next)
        for (int x = 0; x < Keys; ++x) prefetch(next + x * stride + c * Vd, Vd);
      for (int64_t i = c * count_; i < (c + 1) * count_; ++i) {
        A* o = o_ + i * vw_;
        Vec<A> p[Keys];
        for (int x = 0; x < Keys; ++x) p[x] = splat(s_[i * C + j + x]);
        for_vectors<A>(Vd, [&](int64_t d, auto size) {
          Vec<A> sum = vload(o + d);
          for (int x = 0; x < Keys; ++x) sum += Vec<A>(get(v + x * stride + d, size)) * p[x];
          vstore(o + d, sum);
        });
      }
    }
  }

  void emit(int64_t i) const {
    const int64_t Vd = args_.value_dim;
    if (unit_.partial < 0) return finish<T>(args_, place(i), o_ + i * vw_, max_[i], sum_[i]);
    A* out = static_cast<A*>(args_.partial) + (unit_.partial + i) * (Vd + 2);
    store_row(o_ + i * vw_, Vd, out);
    out[Vd] = max_[i], out[Vd + 1] = sum_[i];
  }

  const AttentionForward& args_;
  const int64_t kw_, vw_, group_;
  const Workspace<A> scratch_;
  A *q_, *o_, *s_, *k_, *column_, *max_, *sum_;
  std::unique_ptr<Rotations<A>> rotations_;
  AttentionSegment unit_{-1, 0, 0, 0};
  int64_t count_ = 0, all_ = 0;
};

// Joins the segments of one sequence and key/value head, in the order of their keys.
template <typename T>
inline void merge_segments(const AttentionForward& args, const AttentionMerge& merge) {
  using A = Arithmetic<T>;
  const int64_t Vd = args.value_dim, group = args.heads / args.kv_heads, b = merge.sequence;
  const int64_t count = (args.rows[b + 1] - args.rows[b]) * group, size = count * args.kv_heads * (Vd + 2);
  for (int64_t i = 0; i < count; ++i) {
    A* first = static_cast<A*>(args.partial) + (merge.first + merge.kv_head * count + i) * (Vd + 2);
    A top = first[Vd], sum = 0;
    for (int64_t s = 1; s < merge.segments; ++s) top = first[s * size + Vd] > top ? first[s * size + Vd] : top;
    for (int64_t s = 0; s < merge.segments; ++s) {
      A* part = first + s * size;
      const A weight = std::exp(part[Vd] - top);
      sum += part[Vd + 1] * weight;
      for (int64_t d = 0; d < Vd; ++d) first[d] = (s > 0 ? first[d] : A(0)) + part[d] * weight;
    }
    finish<T>(args, (args.rows[b] + i / group) * args.heads + merge.kv_head * group + i % group, first, top, sum);
  }
}

}  // namespace oryx::ops::ORYX_ISA
