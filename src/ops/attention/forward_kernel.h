#pragma once

// Forward pass of attention for one block of stacked query rows. Included by cpu.cpp only.

#include <limits>
#include <type_traits>

#include "ops/attention/cpu.h"
#include "ops/common/gemm.h"
#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

// dst [padded row] = src [n], zeros behind.
template <typename T, typename A>
inline void load_padded(const T* src, int64_t n, A* dst) {
  for_vectors<A>(n, [&](int64_t i, auto size) { vstore(dst + i, Vec<A>(get(src + i, size))); });
}

template <typename V>
inline V vmax(V a, V b) {
  return a > b ? a : b;
}

// Blocks that would fill less than half a vector are better taken row by row, with vectors along the head dims. The
// backward pass must come to the same logits, bit by bit, or differences of large ones would not cancel: it decides by
// the same rule, and both passes take a logit's distance from the maximum by the same expression.
template <typename A>
inline bool by_rows(int64_t count) {
  return 2 * count <= kLanes<A>;
}
template <typename V, typename A, typename M>
inline V below(V product, A scale, M maximum) {
  return product * scale - maximum;
}

// Writes row `at` of [R, H]: o [Vd], spaced by `stride`, is divided by the sum.
template <typename T, typename A>
inline void finish(const AttentionForward& args, int64_t at, const A* o, int64_t stride, A maximum, A sum) {
  const int64_t Vd = args.value_dim;
  T* out = static_cast<T*>(args.o) + at * Vd;
  T* residual = args.residual ? static_cast<T*>(args.residual) + at * Vd : nullptr;
  const A inverse = 1 / sum;
  for (int64_t d = 0; d < Vd; ++d) {
    const A x = o[d * stride] * inverse;
    store(out + d, x);
    if (residual) store(residual + d, x - load<A>(out + d));
  }
  static_cast<A*>(args.lse)[2 * at] = maximum;
  static_cast<A*>(args.lse)[2 * at + 1] = std::log(sum);
}

template <typename T>
class AttentionForwardUnit {
  using A = Arithmetic<T>;
  static constexpr int64_t M = kAttentionRows, C = kAttentionKeys;
  static constexpr A kLowest = std::numeric_limits<A>::lowest();

 public:
  explicit AttentionForwardUnit(const AttentionForward& args)
      : args_(args),
        kp_(padded<A>(args.key_dim)),
        vp_(padded<A>(args.value_dim)),
        group_(args.heads / args.kv_heads),
        scale_(static_cast<A>(args.scale)),
        scratch_((M + C) * (kp_ + vp_) + M * C + 3 * M + C) {
    A* next = scratch_.get();
    const auto take = [&](int64_t n) {
      next += n;
      return next - n;
    };
    q_ = take(M * kp_), o_ = take(M * vp_), k_ = take(C * kp_), v_ = take(C * vp_), s_ = take(M * C);
    max_ = take(M), sum_ = take(M), limit_ = take(M), column_ = take(C);
    for (int64_t j = 0; j < C; ++j) column_[j] = static_cast<A>(j);
  }

  void run(const AttentionUnit& unit) {
    unit_ = unit;
    for (int64_t i = 0; i < M; ++i) max_[i] = kLowest, sum_[i] = 0;
    if (by_rows<A>(unit.count))
      few_rows();
    else
      many_rows();
  }

 private:
  int64_t row(int64_t i) const { return args_.rows[unit_.sequence] + (unit_.begin + i) / group_; }
  int64_t head(int64_t i) const { return unit_.kv_head * group_ + (unit_.begin + i) % group_; }
  int64_t token(int64_t i) const { return args_.read ? args_.read[row(i)] : row(i); }
  const T* query(int64_t i) const {
    return static_cast<const T*>(args_.q) + (row(i) * args_.heads + head(i)) * args_.key_dim;
  }

  struct Block {
    const A* data;
    int64_t stride;
  };
  // n keys or values as elements that can be multiplied: where they lie, if they are of that type already and, for
  // reads of whole vectors, if rows end with a vector; else a copy.
  Block rows_of(const void* tensor, int64_t t0, int64_t n, int64_t dim, A* copy, bool whole_vectors) const {
    const T* src = static_cast<const T*>(tensor) + (t0 * args_.kv_heads + unit_.kv_head) * dim;
    const int64_t stride = args_.kv_heads * dim, width = padded<A>(dim);
    if constexpr (std::is_same_v<T, A>)
      if (!whole_vectors || width == dim) return {src, stride};
    for (int64_t j = 0; j < n; ++j) load_padded(src + j * stride, dim, copy + j * width);
    return {copy, width};
  }

  // With several key/value heads, one head's keys lie too far apart for the processor to see them coming.
  void prefetch(const void* tensor, int64_t t, int64_t dim) const {
    if (t >= unit_.key_end) return;
    const char* row =
        reinterpret_cast<const char*>(static_cast<const T*>(tensor) + (t * args_.kv_heads + unit_.kv_head) * dim);
    for (int64_t at = 0; at < dim * static_cast<int64_t>(sizeof(T)); at += 64) __builtin_prefetch(row + at);
  }

  // Vectors along the rows: S^T = K Q^T and O^T += V^T P^T need no transposed key or value, and maxima and sums are
  // taken down the columns.
  void many_rows() {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, count = unit_.count, width = padded<A>(count);
    for (int64_t i = 0; i < width; ++i) {
      const T* q = query(i < count ? i : 0);
      for (int64_t d = 0; d < Kd; ++d) q_[d * width + i] = i < count ? load<A>(q + d) : A(0);
    }
    for (int64_t t0 = unit_.key_begin; t0 < unit_.key_end; t0 += C) {
      const int64_t n = t0 + C < unit_.key_end ? C : unit_.key_end - t0;
      const Block k = rows_of(args_.k, t0, n, Kd, k_, false), v = rows_of(args_.v, t0, n, Vd, v_, false);
      gemm<false>(n, width, Kd, k.data, k.stride, 1, q_, width, s_, width);
      const bool first = t0 == unit_.key_begin;
      if (token(0) < t0 + n - 1) {
        for (int64_t i = 0; i < width; ++i) {
          const int64_t ahead = token(i < count ? i : count - 1) - t0;
          limit_[i] = static_cast<A>(ahead < -1 ? -1 : ahead > C ? C : ahead);
        }
        softmax_columns<true>(n, width, first);
      } else {
        softmax_columns<false>(n, width, first);
      }
      if (first)
        gemm<false>(Vd, width, n, v.data, 1, v.stride, s_, width, o_, width);
      else
        gemm<true>(Vd, width, n, v.data, 1, v.stride, s_, width, o_, width);
    }
    for (int64_t i = 0; i < count; ++i) emit(i, o_ + i, width);
  }

  template <bool Masked>
  void softmax_columns(int64_t n, int64_t width, bool first) {
    for (int64_t c = 0; c < width; c += kLanes<A>) {
      const Vec<A> limit = Masked ? vload(limit_ + c) : Vec<A>{}, before = vload(max_ + c);
      Vec<A> top = before, total{};
      for (int64_t j = 0; j < n; ++j) {
        const Vec<A> x = vload(s_ + j * width + c) * scale_;
        top = vmax(top, Masked ? (splat(static_cast<A>(j)) > limit ? splat(kLowest) : x) : x);
      }
      for (int64_t j = 0; j < n; ++j) {
        Vec<A> p = vexp(below(vload(s_ + j * width + c), scale_, top));
        if constexpr (Masked) p = splat(static_cast<A>(j)) > limit ? Vec<A>{} : p;
        total += p;
        vstore(s_ + j * width + c, p);
      }
      const Vec<A> shrink = vexp(before - top);
      vstore(sum_ + c, vload(sum_ + c) * shrink + total);
      vstore(max_ + c, top);
      if (first) continue;
      for (int64_t d = 0; d < args_.value_dim; ++d) vstore(o_ + d * width + c, vload(o_ + d * width + c) * shrink);
    }
  }

  // Vectors along the head dims: one dot product for each row and key.
  void few_rows() {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, count = unit_.count;
    for (int64_t i = 0; i < count; ++i) load_padded(query(i), Kd, q_ + i * kp_);
    fill_zero(o_, count * vp_);
    for (int64_t t0 = unit_.key_begin; t0 < unit_.key_end; t0 += C) {
      const int64_t n = t0 + C < unit_.key_end ? C : unit_.key_end - t0;
      const Block k = rows_of(args_.k, t0, n, Kd, k_, true), v = rows_of(args_.v, t0, n, Vd, v_, true);
      for (int64_t j = 0; j < n; ++j) {
        prefetch(args_.k, t0 + C + j, Kd);
        prefetch(args_.v, t0 + C + j, Vd);
        for (int64_t i = 0; i < count; ++i) s_[i * C + j] = dot(kp_, q_ + i * kp_, k.data + j * k.stride);
      }
      for (int64_t i = 0; i < count; ++i) softmax_row(i, token(i) - t0 + 1, n);
      gemm<true>(count, vp_, n, s_, C, 1, v.data, v.stride, o_, vp_);
    }
    for (int64_t i = 0; i < count; ++i) emit(i, o_ + i * vp_, 1);
  }

  // Row i sees the first `visible` of n keys.
  void softmax_row(int64_t i, int64_t visible, int64_t n) {
    A* s = s_ + i * C;
    if (visible <= 0) return fill_zero(s, n);
    const Vec<A> limit = splat(static_cast<A>(visible < n ? visible : n));
    Vec<A> tops = splat(max_[i]), total{};
    for (int64_t j = 0; j < n; j += kLanes<A>) {
      const Vec<A> x = vload(s + j) * scale_;
      tops = vmax(tops, vload(column_ + j) < limit ? x : splat(kLowest));
    }
    A top = tops[0];
    for (int l = 1; l < kLanes<A>; ++l) top = tops[l] > top ? tops[l] : top;
    for (int64_t j = 0; j < n; j += kLanes<A>) {
      const Vec<A> p = vexp(below(vload(s + j), scale_, top));
      vstore(s + j, vload(column_ + j) < limit ? p : Vec<A>{});
      total += vload(s + j);
    }
    const A shrink = vexp(splat(max_[i] - top))[0];
    sum_[i] = sum_[i] * shrink + vsum<A>(total);
    max_[i] = top;
    for (int64_t d = 0; d < vp_; d += kLanes<A>) vstore(o_ + i * vp_ + d, vload(o_ + i * vp_ + d) * shrink);
  }

  void emit(int64_t i, const A* o, int64_t stride) {
    const int64_t Vd = args_.value_dim, at = row(i) * args_.heads + head(i);
    if (unit_.partial >= 0) {
      A* out = static_cast<A*>(args_.partial) + (unit_.partial + i) * (Vd + 2);
      for (int64_t d = 0; d < Vd; ++d) out[d] = o[d * stride];
      out[Vd] = max_[i], out[Vd + 1] = sum_[i];
      return;
    }
    finish<T>(args_, at, o, stride, max_[i], sum_[i]);
  }

  const AttentionForward& args_;
  const int64_t kp_, vp_, group_;
  const A scale_;
  const Workspace<A> scratch_;
  A *q_, *o_, *k_, *v_, *s_, *max_, *sum_, *limit_,
      *column_;  // q_ and o_ are transposed where vectors lie along the rows
  AttentionUnit unit_{};
};

// Joins the segments of one sequence and head, in the order of their keys.
template <typename T>
inline void merge_segments(const AttentionForward& args, const AttentionMerge& merge) {
  using A = Arithmetic<T>;
  const int64_t Vd = args.value_dim, group = args.heads / args.kv_heads, size = merge.count * (Vd + 2);
  for (int64_t i = 0; i < merge.count; ++i) {
    A* first = static_cast<A*>(args.partial) + (merge.first + i) * (Vd + 2);
    A top = first[Vd], sum = 0;
    for (int64_t s = 1; s < merge.segments; ++s) top = first[s * size + Vd] > top ? first[s * size + Vd] : top;
    for (int64_t s = 0; s < merge.segments; ++s) {
      A* part = first + s * size;
      const A weight = std::exp(part[Vd] - top);
      sum += part[Vd + 1] * weight;
      for (int64_t d = 0; d < Vd; ++d) first[d] = (s > 0 ? first[d] : A(0)) + part[d] * weight;
    }
    const int64_t row = args.rows[merge.sequence] + i / group, head = merge.kv_head * group + i % group;
    finish<T>(args, row * args.heads + head, first, 1, top, sum);
  }
}

}  // namespace oryx::ops::ORYX_ISA
