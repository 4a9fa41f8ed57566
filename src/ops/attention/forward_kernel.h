#pragma once

// Forward pass of attention for one block of stacked query rows. Included by cpu.cpp only.

#include <algorithm>
#include <limits>

#include "ops/attention/row_math.h"
#include "ops/common/pairs.h"

namespace oryx::ops::ORYX_ISA {

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
        scratch_((2 * M + C) * kp_ + (2 * M + C) * vp_ + 2 * M * C + 3 * M) {
    A* next = scratch_.get();
    const auto take = [&](int64_t n) {
      next += n;
      return next - n;
    };
    q_ = take(M * kp_), o_ = take(M * vp_), k_ = take(C * kp_), v_ = take(C * vp_), s_ = take(M * C), p_ = take(M * C);
    rows_ = take(M * std::max(kp_, vp_));
    max_ = take(M), sum_ = take(M), limit_ = take(M);
  }

  // Vectors along the rows: S^T = K Q^T and O^T += V^T P^T need no transposed key or value, and maxima and sums are
  // taken down the columns.
  void run(const AttentionUnit& unit) {
    unit_ = unit;
    for (int64_t i = 0; i < M; ++i) max_[i] = kLowest, sum_[i] = 0;
    for (int64_t i = 0; i < unit.count; ++i) token_[i] = args_.read ? args_.read[row(i)] : row(i);
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, count = unit_.count, width = padded<A>(count);
    for (int64_t i = 0; i < width; ++i)
      load_elements(query(i < count ? i : 0), Kd, kp_, reinterpret_cast<E*>(rows_) + i * kp_ / kPer);
    transpose(width, kp_ / kPer, reinterpret_cast<E*>(rows_), kp_ / kPer, reinterpret_cast<E*>(q_), width);
    fill_zero(o_, vp_ * width);
    for (int64_t t0 = unit_.key_begin; t0 < unit_.key_end; t0 += C) {
      const int64_t n = t0 + C < unit_.key_end ? C : unit_.key_end - t0;
      const Keys k = key_elements(t0, n);
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
    for (int64_t i = 0; i < count; ++i) finish<T>(args_, place(i), rows_ + i * vp_, max_[i], sum_[i]);
  }

 private:
  int64_t row(int64_t i) const { return args_.rows[unit_.sequence] + (unit_.begin + i) / group_; }
  int64_t place(int64_t i) const {  // in [R, H]
    return row(i) * args_.heads + unit_.kv_head * group_ + (unit_.begin + i) % group_;
  }
  const T* query(int64_t i) const { return static_cast<const T*>(args_.q) + place(i) * args_.key_dim; }

  struct Keys {
    const E* data;
    int64_t stride;
  };
  const T* at(const void* tensor, int64_t t, int64_t dim) const {
    return static_cast<const T*>(tensor) + (t * args_.kv_heads + unit_.kv_head) * dim;
  }
  // Keys as rows of elements, and values as elements along the keys: copied, since one head's rows are often a power of
  // two apart, where the first cache has room for a few.
  Keys key_elements(int64_t t0, int64_t n) const {
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

  // The block's n keys for the rows of columns [c, c + Vectors).
  template <int Vectors>
  void panel(Keys k, Values v, int64_t t0, int64_t n, int64_t c, int64_t width) {
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
  void probabilities(Keys k, int64_t seen, int64_t c, int64_t width, Vec<A>* shrink) {
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

  const AttentionForward& args_;
  const int64_t kp_, vp_, group_;
  const A scale_;
  const Workspace<A> scratch_;
  // q_ and o_ are transposed where vectors lie along the rows; q_, k_, v_, p_ and rows_ may hold elements of type E.
  A *q_, *o_, *k_, *v_, *s_, *p_, *rows_, *max_, *sum_, *limit_;
  [[no_unique_address]] MatrixTiles tiles_;
  AttentionUnit unit_{};
  int64_t token_[M];
};

}  // namespace oryx::ops::ORYX_ISA
