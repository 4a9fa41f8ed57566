#pragma once

// Forward pass of attention for one block of stacked query rows. Included by cpu.cpp only.

#include <algorithm>
#include <limits>
#include <type_traits>

#include "ops/attention/cpu.h"
#include "ops/common/pairs.h"

namespace oryx::ops::ORYX_ISA {

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

// Writes row `at` of [R, H]: o [padded Vd] divided by the sum.
template <typename T, typename A>
inline void finish(const AttentionForward& args, int64_t at, const A* o, A maximum, A sum) {
  const int64_t Vd = args.value_dim;
  T* out = static_cast<T*>(args.o) + at * Vd;
  T* residual = args.residual ? static_cast<T*>(args.residual) + at * Vd : nullptr;
  const A inverse = 1 / sum;
  for_vectors<A>(Vd, [&](int64_t d, auto size) {
    const Vec<A> x = Vec<A>(get(o + d, size)) * inverse;
    put(out + d, x, size);
    if (residual) put(residual + d, Vec<A>(x - get(out + d, size)), size);
  });
  static_cast<A*>(args.lse)[2 * at] = maximum;
  static_cast<A*>(args.lse)[2 * at + 1] = std::log(sum);
}

template <typename T>
class AttentionForwardUnit {
  using A = Arithmetic<T>;
  using E = Element<T>;
  static constexpr int64_t M = kAttentionRows, C = kAttentionKeys, kPer = kPairs<T> ? 2 : 1;
  static constexpr int kRows = kTileRows<E>;
  static constexpr A kLowest = std::numeric_limits<A>::lowest();

 public:
  explicit AttentionForwardUnit(const AttentionForward& args)
      : args_(args),
        kp_(round_up(args.key_dim, kLanes<A> * kPer)),
        vp_(round_up(args.value_dim, std::max<int64_t>(kLanes<A>, kRows))),
        group_(args.heads / args.kv_heads),
        scale_(static_cast<A>(args.scale)),
        scratch_((2 * M + C) * kp_ + (2 * M + C) * vp_ + 2 * M * C + 3 * M + C) {
    A* next = scratch_.get();
    const auto take = [&](int64_t n) {
      next += n;
      return next - n;
    };
    q_ = take(M * kp_), o_ = take(M * vp_), k_ = take(C * kp_), v_ = take(C * vp_), s_ = take(M * C), p_ = take(M * C);
    rows_ = take(M * std::max(kp_, vp_));
    max_ = take(M), sum_ = take(M), limit_ = take(M), column_ = take(C);
    for (int64_t j = 0; j < C; ++j) column_[j] = static_cast<A>(j);
  }

  void run(const AttentionUnit& unit) {
    unit_ = unit;
    for (int64_t i = 0; i < M; ++i) max_[i] = kLowest, sum_[i] = 0;
    for (int64_t i = 0; i < unit.count; ++i) token_[i] = args_.read ? args_.read[row(i)] : row(i);
    if (by_rows<A>(unit.count))
      few_rows();
    else
      many_rows();
  }

 private:
  int64_t row(int64_t i) const { return args_.rows[unit_.sequence] + (unit_.begin + i) / group_; }
  int64_t head(int64_t i) const { return unit_.kv_head * group_ + (unit_.begin + i) % group_; }
  const T* query(int64_t i) const {
    return static_cast<const T*>(args_.q) + (row(i) * args_.heads + head(i)) * args_.key_dim;
  }

  template <typename X>
  struct Block {
    const X* data;
    int64_t stride;
  };
  const T* at(const void* tensor, int64_t t, int64_t dim) const {
    return static_cast<const T*>(tensor) + (t * args_.kv_heads + unit_.kv_head) * dim;
  }
  // n keys or values in the type of arithmetic: where they lie, if they are of that type already and rows end with a
  // vector; else a copy.
  Block<A> rows_of(const void* tensor, int64_t t0, int64_t n, int64_t dim, A* copy) const {
    const T* src = at(tensor, t0, dim);
    const int64_t stride = args_.kv_heads * dim, width = padded<A>(dim);
    if constexpr (std::is_same_v<T, A>)
      if (width == dim) return {src, stride};
    for (int64_t j = 0; j < n; ++j) load_padded(src + j * stride, dim, copy + j * width);
    return {copy, width};
  }
  // Keys as rows of elements, and values as elements along the keys: copied, since one head's rows are often a power of
  // two apart, where the first cache has room for a few.
  Block<E> key_elements(int64_t t0, int64_t n) const {
    const int64_t Kd = args_.key_dim;
    E* copy = reinterpret_cast<E*>(k_);
    for (int64_t j = 0; j < n; ++j) load_elements(at(args_.k, t0 + j, Kd), Kd, kp_, copy + j * kp_ / kPer);
    return {copy, kp_ / kPer};
  }
  // Element (d, p) of V^T is data[d * row + p * column].
  struct Values {
    const E* data;
    int64_t row, column;
  };
  Values value_elements(int64_t t0, int64_t n) const {
    const int64_t Vd = args_.value_dim;
    E* copy = reinterpret_cast<E*>(v_);
    if constexpr (kPairs<T>)
      pair_rows(n, Vd, at(args_.v, t0, Vd), args_.kv_heads * Vd, copy, vp_);
    else
      for (int64_t j = 0; j < n; ++j) load_padded(at(args_.v, t0 + j, Vd), Vd, copy + j * vp_);
    if constexpr (!(kMatrixTiles && kPairs<T>)) return {copy, 1, vp_};
    const int64_t pairs = (n + 1) / 2;
    fill_zero(copy + pairs * vp_, (C / 2 - pairs) * vp_);
    E* turned = copy + C / 2 * vp_;
    transpose(C / 2, vp_, copy, vp_, turned, C / 2);
    return {turned, C / 2, 1};
  }

  // With several key/value heads, one head's keys lie too far apart for the processor to see them coming.
  void prefetch(const void* tensor, int64_t t, int64_t dim) const {
    if (t >= unit_.key_end) return;
    const char* row = reinterpret_cast<const char*>(at(tensor, t, dim));
    for (int64_t i = 0; i < dim * static_cast<int64_t>(sizeof(T)); i += 64) __builtin_prefetch(row + i);
  }

  // Vectors along the rows: S^T = K Q^T and O^T += V^T P^T need no transposed key or value, and maxima and sums are
  // taken down the columns.
  void many_rows() {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, count = unit_.count, width = padded<A>(count);
    for (int64_t i = 0; i < width; ++i)
      load_elements(query(i < count ? i : 0), Kd, kp_, reinterpret_cast<E*>(rows_) + i * kp_ / kPer);
    transpose(width, kp_ / kPer, reinterpret_cast<E*>(rows_), kp_ / kPer, reinterpret_cast<E*>(q_), width);
    fill_zero(o_, vp_ * width);
    for (int64_t t0 = unit_.key_begin; t0 < unit_.key_end; t0 += C) {
      const int64_t n = t0 + C < unit_.key_end ? C : unit_.key_end - t0;
      const Block<E> k = key_elements(t0, n);
      const Values v = value_elements(t0, n);
      for (int64_t j = 0; j < C; ++j) {
        prefetch(args_.k, t0 + C + j, Kd);
        prefetch(args_.v, t0 + C + j, Vd);
      }
      for (int64_t i = 0; i < width; ++i) {
        const int64_t ahead = token_[i < count ? i : count - 1] - t0;
        limit_[i] = static_cast<A>(ahead < -1 ? -1 : ahead > C ? C : ahead);
      }
      for_panels<A>(width, [&]<int Vectors>(int64_t c) { panel<Vectors>(k, v, t0, n, c, width); });
    }
    transpose(vp_, width, o_, width, rows_, vp_);
    for (int64_t i = 0; i < count; ++i) emit(i, rows_ + i * vp_);
  }

  // The block's n keys for the rows of columns [c, c + Vectors).
  template <int Vectors>
  void panel(Block<E> k, Values v, int64_t t0, int64_t n, int64_t c, int64_t width) {
    const int64_t last = std::min(c + Vectors * kLanes<A>, unit_.count) - 1, seen = std::min(n, token_[last] - t0 + 1);
    if (seen <= 0) return;
    Vec<A> shrink[Vectors];
    if (token_[c] < t0 + seen - 1 || seen % kRows != 0)
      probabilities<true, Vectors>(k, seen, c, width, shrink);
    else
      probabilities<false, Vectors>(k, seen, c, width, shrink);
    const E* p = kPairs<T> ? reinterpret_cast<const E*>(p_) : reinterpret_cast<const E*>(s_);
    for (int64_t d = 0; d < args_.value_dim; d += kRows) {
      Tile<A, kRows, Vectors> tile;
      tile.load(o_ + d * width + c, width);
      for (int r = 0; r < kRows; ++r)
        for (int x = 0; x < Vectors; ++x) tile.sum[r][x] *= shrink[x];
      tile.multiply((seen + kPer - 1) / kPer, v.data + d * v.row, v.row, v.column, p, Vectors * kLanes<A>);
      tile.store(o_ + d * width + c, width);
    }
  }

  // exp(logit - maximum) of the first `seen` keys into s_ or, as pairs, p_; `shrink` is what earlier sums are to be
  // multiplied with.
  template <bool Masked, int Vectors>
  void probabilities(Block<E> k, int64_t seen, int64_t c, int64_t width, Vec<A>* shrink) {
    constexpr int64_t L = kLanes<A>, stride = Vectors * L;
    Vec<A> limit[Vectors], before[Vectors], top[Vectors], total[Vectors];
    for (int x = 0; x < Vectors; ++x) {
      limit[x] = vload(limit_ + c + x * L);
      limit[x] = limit[x] < splat(static_cast<A>(seen - 1)) ? limit[x] : splat(static_cast<A>(seen - 1));
      before[x] = top[x] = vload(max_ + c + x * L);
      total[x] = Vec<A>{};
    }
    for (int64_t j = 0; j < seen; j += kRows) {  // the last rows may be any: `limit` leaves them out
      Tile<A, kRows, Vectors> tile;
      tile.zero();
      tile.multiply((args_.key_dim + kPer - 1) / kPer, k.data + j * k.stride, k.stride, 1,
                    reinterpret_cast<const E*>(q_) + c, width);
      tile.store(s_ + j * stride, stride);
      for (int r = 0; r < kRows; ++r)
        for (int x = 0; x < Vectors; ++x) {
          const Vec<A> logit = tile.sum[r][x] * scale_;
          top[x] = vmax(top[x], Masked ? (splat(static_cast<A>(j + r)) > limit[x] ? splat(kLowest) : logit) : logit);
        }
    }
    const auto weight = [&](int64_t j, int x) {
      const Vec<A> p = vexp(below(vload(s_ + j * stride + x * L), scale_, top[x]));
      return Masked ? (splat(static_cast<A>(j)) > limit[x] ? Vec<A>{} : p) : p;
    };
    for (int64_t j = 0; j < seen; j += kPer)
      for (int x = 0; x < Vectors; ++x) {
        const Vec<A> p = weight(j, x);
        total[x] += p;
        if constexpr (kPairs<T>) {
          const Vec<A> next = j + 1 < seen ? weight(j + 1, x) : Vec<A>{};
          total[x] += next;
          vstore(reinterpret_cast<Pair*>(p_) + j / 2 * stride + x * L, pair(p, next));
        } else {
          vstore(s_ + j * stride + x * L, p);
        }
      }
    if constexpr (kMatrixTiles && kPairs<T>)
      fill_zero(reinterpret_cast<Pair*>(p_) + (seen + 1) / 2 * stride,
                round_up((seen + 1) / 2, 16) * stride - (seen + 1) / 2 * stride);
    for (int x = 0; x < Vectors; ++x) {
      shrink[x] = vexp(before[x] - top[x]);
      vstore(sum_ + c + x * L, vload(sum_ + c + x * L) * shrink[x] + total[x]);
      vstore(max_ + c + x * L, top[x]);
    }
  }

  // Vectors along the head dims: one dot product for each row and key.
  void few_rows() {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, count = unit_.count, kw = padded<A>(Kd);
    for (int64_t i = 0; i < count; ++i) load_padded(query(i), Kd, q_ + i * kw);
    fill_zero(o_, count * vp_);
    for (int64_t t0 = unit_.key_begin; t0 < unit_.key_end; t0 += C) {
      const int64_t n = t0 + C < unit_.key_end ? C : unit_.key_end - t0;
      const Block<A> k = rows_of(args_.k, t0, n, Kd, k_), v = rows_of(args_.v, t0, n, Vd, v_);
      for (int64_t j = 0; j < n; ++j) {
        prefetch(args_.k, t0 + C + j, Kd);
        prefetch(args_.v, t0 + C + j, Vd);
        for (int64_t i = 0; i < count; ++i) s_[i * C + j] = dot(kw, q_ + i * kw, k.data + j * k.stride);
      }
      for (int64_t i = 0; i < count; ++i) softmax_row(i, token_[i] - t0 + 1, n);
      gemm<true>(count, padded<A>(Vd), n, s_, C, 1, v.data, v.stride, o_, vp_);
    }
    for (int64_t i = 0; i < count; ++i) emit(i, o_ + i * vp_);
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

  void emit(int64_t i, const A* o) {
    const int64_t Vd = args_.value_dim;
    if (unit_.partial >= 0) {
      A* out = static_cast<A*>(args_.partial) + (unit_.partial + i) * (Vd + 2);
      for (int64_t d = 0; d < Vd; ++d) out[d] = o[d];
      out[Vd] = max_[i], out[Vd + 1] = sum_[i];
      return;
    }
    finish<T>(args_, row(i) * args_.heads + head(i), o, max_[i], sum_[i]);
  }

  const AttentionForward& args_;
  const int64_t kp_, vp_, group_;
  const A scale_;
  const Workspace<A> scratch_;
  // q_ and o_ are transposed where vectors lie along the rows; q_, k_, v_, p_ and rows_ may hold elements of type E.
  A *q_, *o_, *k_, *v_, *s_, *p_, *rows_, *max_, *sum_, *limit_, *column_;
  [[no_unique_address]] MatrixTiles tiles_;
  AttentionUnit unit_{};
  int64_t token_[M];
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
    finish<T>(args, row * args.heads + head, first, top, sum);
  }
}

}  // namespace oryx::ops::ORYX_ISA
