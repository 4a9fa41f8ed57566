#pragma once

// Backward pass of attention for one block of keys: probabilities come again from the saved log-sum-exp (Dao,
// "FlashAttention-2", arXiv 2307.08691, algorithm 2). The gradients of the block's keys and values belong to this unit;
// those of the queries are shared by all blocks of keys, which add to them in the order of the keys: each block of rows
// has a counter of the blocks that did. That keeps every sum in one order without a copy of the gradient per thread.
// A unit waits only for units listed before it, which have been taken by a running thread. Included by cpu.cpp only.

#include <atomic>
#include <thread>

#include "ops/attention/forward_kernel.h"

namespace oryx::ops::ORYX_ISA {

template <typename T>
class AttentionBackwardUnit {
  using A = Arithmetic<T>;
  static constexpr int64_t M = kAttentionRows, C = kAttentionKeys;

 public:
  explicit AttentionBackwardUnit(const AttentionBackward& args)
      : args_(args),
        kp_(padded<A>(args.key_dim)),
        vp_(padded<A>(args.value_dim)),
        group_(args.heads / args.kv_heads),
        scale_(static_cast<A>(args.scale)),
        scratch_(3 * C * kp_ + 2 * C * vp_ + 2 * M * kp_ + M * vp_ + 2 * M * C + C) {
    A* next = scratch_.get();
    const auto take = [&](int64_t n) {
      next += n;
      return next - n;
    };
    k_ = take(C * kp_), kt_ = take(C * kp_), dk_ = take(C * kp_), vt_ = take(C * vp_), dv_ = take(C * vp_);
    q_ = take(M * kp_), dq_ = take(M * kp_), do_ = take(M * vp_), p_ = take(M * C), ds_ = take(M * C);
    column_ = take(C);
    for (int64_t j = 0; j < C; ++j) column_[j] = static_cast<A>(j);
  }

  void run(const AttentionKeyBlock& unit) {
    unit_ = unit;
    n_ = unit.key_end - unit.key_begin;
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim;
    load_keys(args_.v, Vd, vp_, dv_);  // dv_ holds the values until they are transposed
    transpose(C, Vd, dv_, vp_, vt_, C);
    load_keys(args_.k, Kd, kp_, k_);
    transpose(C, Kd, k_, kp_, kt_, C);
    fill_zero(dk_, C * kp_);
    fill_zero(dv_, C * vp_);

    int64_t row = args_.rows[unit.sequence];
    const int64_t end = args_.rows[unit.sequence + 1], stacked = (end - row) * group_;
    while (row < end && token(row) < unit.key_begin) ++row;
    const int64_t first = (row - args_.rows[unit.sequence]) * group_ / M * M;
    for (int64_t i = first; i < stacked; i += M) run_rows(i, i + M < stacked ? M : stacked - i);

    for (int64_t j = 0; j < n_; ++j) {
      const int64_t at = (unit.key_begin + j) * args_.kv_heads + unit.kv_head;
      if (args_.grad_k) write(dk_ + j * kp_, Kd, scale_, static_cast<T*>(args_.grad_k) + at * Kd);
      if (args_.grad_v) write(dv_ + j * vp_, Vd, A(1), static_cast<T*>(args_.grad_v) + at * Vd);
    }
  }

 private:
  int64_t token(int64_t row) const { return args_.read ? args_.read[row] : row; }

  // The block's keys or values, zeros below them.
  void load_keys(const void* tensor, int64_t dim, int64_t width, A* to) const {
    const T* src = static_cast<const T*>(tensor) + (unit_.key_begin * args_.kv_heads + unit_.kv_head) * dim;
    for (int64_t j = 0; j < n_; ++j) load_padded(src + j * args_.kv_heads * dim, dim, to + j * width);
    fill_zero(to + n_ * width, (C - n_) * width);
  }

  static void write(const A* x, int64_t n, A scale, T* to) {
    for_vectors<A>(n, [&](int64_t i, auto size) { put(to + i, Vec<A>(vload(x + i) * scale), size); });
  }

  // Stacked rows [begin, begin + m) of the sequence.
  void run_rows(int64_t begin, int64_t m) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim;
    int64_t place[M];  // of each row in tensors [R, H]
    for (int64_t i = 0; i < m; ++i) {
      const int64_t row = args_.rows[unit_.sequence] + (begin + i) / group_;
      place[i] = row * args_.heads + unit_.kv_head * group_ + (begin + i) % group_;
      load_padded(static_cast<const T*>(args_.q) + place[i] * Kd, Kd, q_ + i * kp_);
      load_padded(static_cast<const T*>(args_.grad_o) + place[i] * Vd, Vd, do_ + i * vp_);
    }
    if (by_rows<A>(m)) {
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < C; ++j) p_[i * C + j] = dot(kp_, q_ + i * kp_, k_ + j * kp_);
    } else {
      gemm<false>(m, C, Kd, q_, kp_, 1, kt_, C, p_, C);
    }
    for (int64_t i = 0; i < m; ++i) {
      const int64_t seen = token(place[i] / args_.heads) - unit_.key_begin + 1;
      probabilities(p_ + i * C, static_cast<const A*>(args_.lse) + 2 * place[i], seen < n_ ? seen : n_);
    }
    if (args_.grad_v) gemm<true>(n_, vp_, m, p_, 1, C, do_, vp_, dv_, vp_);
    if (!args_.grad_q && !args_.grad_k) return;
    gemm<false>(m, C, Vd, do_, vp_, 1, vt_, C, ds_, C);
    for (int64_t i = 0; i < m; ++i) {
      // A row that sees one key gives it all weight, whatever the logit: exactly no gradient.
      if (token(place[i] / args_.heads) == args_.tokens[unit_.sequence]) {
        fill_zero(ds_ + i * C, C);
        continue;
      }
      const A delta = static_cast<const A*>(args_.delta)[place[i]];
      for (int64_t j = 0; j < C; j += kLanes<A>)
        vstore(ds_ + i * C + j, vload(p_ + i * C + j) * (vload(ds_ + i * C + j) - delta));
    }
    if (args_.grad_k) gemm<true>(n_, kp_, m, ds_, 1, C, q_, kp_, dk_, kp_);
    if (!args_.grad_q) return;
    gemm<false>(m, kp_, n_, ds_, C, 1, k_, kp_, dq_, kp_);
    add_to_queries(begin / M, m, place);
  }

  // The first `seen` of a row's logits become probabilities, the others zeros.
  void probabilities(A* s, const A* lse, int64_t seen) const {
    const Vec<A> limit = splat(static_cast<A>(seen < 0 ? 0 : seen));
    for (int64_t j = 0; j < C; j += kLanes<A>) {
      const Vec<A> p = vexp(below(vload(s + j), scale_, lse[0]) - lse[1]);
      vstore(s + j, vload(column_ + j) < limit ? p : Vec<A>{});
    }
  }

  void add_to_queries(int64_t block, int64_t m, const int64_t* place) {
    std::atomic_ref<int32_t> turn(args_.turns[unit_.turns + block]);
    for (int spins = 0; turn.load(std::memory_order_acquire) != unit_.index; ++spins)
      if (spins > 100) std::this_thread::yield();
    for (int64_t i = 0; i < m; ++i) {
      A* to = static_cast<A*>(args_.grad_q) + place[i] * args_.key_dim;
      const A* from = dq_ + i * kp_;
      for_vectors<A>(args_.key_dim, [&](int64_t d, auto size) {
        const Vec<A> x = vload(from + d) * scale_;
        put(to + d, Vec<A>(unit_.index == 0 ? x : x + get(to + d, size)), size);
      });
    }
    turn.store(static_cast<int32_t>(unit_.index + 1), std::memory_order_release);
  }

  const AttentionBackward& args_;
  const int64_t kp_, vp_, group_;
  const A scale_;
  const Workspace<A> scratch_;
  A *k_, *kt_, *dk_, *vt_, *dv_, *q_, *dq_, *do_, *p_, *ds_, *column_;
  AttentionKeyBlock unit_{};
  int64_t n_ = 0;
};

}  // namespace oryx::ops::ORYX_ISA
