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
  using E = Element<T>;
  static constexpr int64_t M = kAttentionRows, C = kAttentionBackwardKeys, kPer = kPairs<T> ? 2 : 1;
  static constexpr int64_t W = skewed<A>(C);  // distance of rows of C

 public:
  explicit AttentionBackwardUnit(const AttentionBackward& args)
      : args_(args),
        kp_(row_width(args.key_dim)),
        vp_(row_width(args.value_dim)),
        group_(args.heads / args.kv_heads),
        scale_(static_cast<A>(args.scale)),
        scratch_((3 * C + W + 3 * M) * kp_ + (2 * C + W + 2 * M) * vp_ + 4 * M * W + C) {
    A* next = scratch_.get();
    const auto take = [&](int64_t n) {
      next += n;
      return next - n;
    };
    const auto elements = [&](int64_t n) { return reinterpret_cast<E*>(take(n)); };
    k_ = elements(C * kp_), kt_ = elements(W * kp_), kc_ = elements(C * kp_), v_ = elements(C * vp_);
    vt_ = elements(W * vp_), q_ = elements(M * kp_), qc_ = elements(M * kp_), do_ = elements(M * vp_);
    doc_ = elements(M * vp_), pc_ = elements(M * W), dsc_ = elements(M * W);
    dk_ = take(C * kp_), dv_ = take(C * vp_), dq_ = take(M * kp_), p_ = take(M * W), ds_ = take(M * W);
    column_ = take(C);
    for (int64_t j = 0; j < C; ++j) column_[j] = static_cast<A>(j);
    if constexpr (!kPairs<T>) kc_ = k_, qc_ = q_, doc_ = do_, pc_ = p_, dsc_ = ds_;
  }

  void run(const AttentionKeyBlock& unit) {
    unit_ = unit;
    n_ = unit.key_end - unit.key_begin;
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim;
    load_keys(args_.v, Vd, vp_, v_);
    transpose(C, vp_ / kPer, v_, vp_ / kPer, vt_, W);
    load_keys(args_.k, Kd, kp_, k_);
    transpose(C, kp_ / kPer, k_, kp_ / kPer, kt_, W);
    along_rows(C, kp_, k_, kc_);
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
  static int64_t row_width(int64_t dim) {
    const int64_t width = round_up(dim, kLanes<A> * kPer);
    return kPairs<T> ? width : skewed<A>(width);
  }
  int64_t token(int64_t row) const { return args_.read ? args_.read[row] : row; }

  // The block's keys or values, zeros below them.
  void load_keys(const void* tensor, int64_t dim, int64_t width, E* to) const {
    const T* src = static_cast<const T*>(tensor) + (unit_.key_begin * args_.kv_heads + unit_.kv_head) * dim;
    for (int64_t j = 0; j < n_; ++j) load_elements(src + j * args_.kv_heads * dim, dim, width, to + j * width / kPer);
    fill_zero(to + n_ * width / kPer, (C - n_) * width / kPer);
  }
  // Rows as elements along the rows, for products that sum over rows.
  static void along_rows(int64_t n, int64_t width, const E* rows, E* to) {
    if constexpr (kPairs<T>) {
      const int64_t pairs = (n + 1) / 2;
      pair_rows(n, width, reinterpret_cast<const Bf16*>(rows), width, to, width);
      if (kMatrixTiles) fill_zero(to + pairs * width, (round_up(pairs, 16) - pairs) * width);
    }
  }

  static void write(const A* x, int64_t n, A scale, T* to) {
    for_vectors<A>(n, [&](int64_t i, auto size) { put(to + i, Vec<A>(vload(x + i) * scale), size); });
  }

  // Stacked rows [begin, begin + m) of the sequence.
  void run_rows(int64_t begin, int64_t m) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, kw = kp_ / kPer, vw = vp_ / kPer;
    const int64_t kd = (Kd + kPer - 1) / kPer, vd = (Vd + kPer - 1) / kPer;
    int64_t place[M];  // of each row in tensors [R, H]
    for (int64_t i = 0; i < m; ++i) {
      const int64_t row = args_.rows[unit_.sequence] + (begin + i) / group_;
      place[i] = row * args_.heads + unit_.kv_head * group_ + (begin + i) % group_;
      load_elements(static_cast<const T*>(args_.q) + place[i] * Kd, Kd, kp_, q_ + i * kw);
      load_elements(static_cast<const T*>(args_.grad_o) + place[i] * Vd, Vd, vp_, do_ + i * vw);
    }
    if (few_rows(args_, unit_.sequence))
      row_logits(m);
    else
      gemm<false>(m, C, kd, q_, kw, 1, kt_, W, p_, W);
    for (int64_t i = 0; i < m; ++i) {
      const int64_t seen = token(place[i] / args_.heads) - unit_.key_begin + 1;
      probabilities(p_ + i * W, static_cast<const A*>(args_.lse) + 2 * place[i], seen < n_ ? seen : n_);
    }
    if (args_.grad_v) {
      if constexpr (kPairs<T>) along_rows(m, vp_, do_, doc_);
      add_transposed(m, p_, pc_, Vd, doc_, vp_, dv_);
    }
    if (!args_.grad_q && !args_.grad_k) return;
    gemm<false>(m, C, vd, do_, vw, 1, vt_, W, ds_, W);
    for (int64_t i = 0; i < m; ++i) {
      // A row that sees one key gives it all weight, whatever the logit: exactly no gradient.
      if (token(place[i] / args_.heads) == args_.tokens[unit_.sequence]) {
        fill_zero(ds_ + i * W, C);
        continue;
      }
      const A delta = static_cast<const A*>(args_.delta)[place[i]];
      for (int64_t j = 0; j < C; j += kLanes<A>)
        vstore(ds_ + i * W + j, vload(p_ + i * W + j) * (vload(ds_ + i * W + j) - delta));
    }
    if (args_.grad_k) {
      if constexpr (kPairs<T>) along_rows(m, kp_, q_, qc_);
      add_transposed(m, ds_, dsc_, Kd, qc_, kp_, dk_);
    }
    if (!args_.grad_q) return;
    if constexpr (kPairs<T>) {
      for (int64_t i = 0; i < m; ++i) pair_columns(C, ds_ + i * W, dsc_ + i * W / 2);
      gemm<false>(m, padded<A>(Kd), (n_ + 1) / 2, dsc_, W / 2, 1, kc_, kp_, dq_, kp_);
    } else {
      gemm<false>(m, padded<A>(Kd), n_, ds_, W, 1, k_, kp_, dq_, kp_);
    }
    add_to_queries(begin / M, m, place);
  }

  // out [n, dim] += x^T y over m rows: x [m, C] by way of the elements xc, y along its rows.
  void add_transposed(int64_t m, const A* x, E* xc, int64_t dim, const E* y, int64_t width, A* out) {
    const int64_t count = (m + kPer - 1) / kPer;
    if constexpr (kPairs<T>) pair_rows(m, C, x, W, xc, W);
    if constexpr (kMatrixTiles && kPairs<T>) {
      fill_zero(xc + count * W, (round_up(count, 16) - count) * W);
      E* turned = xc + M / 2 * W;
      transpose(round_up(count, 16), C, xc, W, turned, M / 2);
      gemm<true>(n_, padded<A>(dim), count, turned, M / 2, 1, y, width, out, width);
    } else {
      gemm<true>(n_, padded<A>(dim), count, xc, 1, W, y, width, out, width);
    }
  }

  // As the forward pass takes few rows: one dot product for each row and key.
  void row_logits(int64_t m) {
    const int64_t width = padded<A>(args_.key_dim);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < C; ++j) {
        using Stored = std::conditional_t<kPairs<T>, T, A>;  // what pairs are made of
        const Stored *q = reinterpret_cast<const Stored*>(q_) + i * kp_,
                     *k = reinterpret_cast<const Stored*>(k_) + j * kp_;
        p_[i * W + j] = vsum<A>(products<A>(width, q, k));
      }
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
  // Keys and values, queries and output gradients as rows; kt_ and vt_ transposed; kc_, qc_, doc_, pc_ and dsc_ as
  // elements along the rows.
  E *k_, *kt_, *kc_, *v_, *vt_, *q_, *qc_, *do_, *doc_, *pc_, *dsc_;
  A *dk_, *dv_, *dq_, *p_, *ds_, *column_;
  [[no_unique_address]] MatrixTiles tiles_;
  AttentionKeyBlock unit_{};
  int64_t n_ = 0;
};

}  // namespace oryx::ops::ORYX_ISA
