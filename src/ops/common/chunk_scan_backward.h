#pragma once

// Backward pass of ops/common/chunk_scan.h, chunk by chunk from the last, carrying the gradient of the state. The
// forward pass kept each chunk's first state and each token's u; the rest is computed again. In the comments below d(x)
// is the gradient of x, and B_rj = exp(G_i - G_j) q_r . k_j for the row r that reads token i. Included by cpu.cpp only.

#include "ops/common/chunk_scan.h"

namespace oryx::ops::ORYX_ISA {

template <typename T, typename A, bool Delta>
class BackwardUnit {
 public:
  explicit BackwardUnit(const RecurrenceBackward& args)
      : args_(args),
        kp_(padded<A>(args.key_dim)),
        vp_(padded<A>(args.value_dim)),
        scratch_(6 * C * kp_ + 6 * C * vp_ + 4 * kp_ * vp_ + 5 * C * C + 5 * C) {
    for (A** part : {&K_, &Q_, &dK_, &X_}) *part = scratch_.take(C * kp_);
    for (A** part : {&V_, &U_, &dU_, &dO_, &P_}) *part = scratch_.take(C * vp_);
    KT_ = scratch_.take(kp_ * C), UT_ = scratch_.take(vp_ * C);
    S_ = scratch_.take(kp_ * vp_), ST_ = scratch_.take(vp_ * kp_);
    dS_ = scratch_.take(kp_ * vp_), dST_ = scratch_.take(vp_ * kp_);
    M_ = scratch_.take(C * C), dM_ = scratch_.take(C * C), decay_.D = scratch_.take(C * C);
    decay_.e = scratch_.take(C), decay_.f = scratch_.take(C), w_ = scratch_.take(C);
  }

  void run(int64_t b, int64_t head) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, Hkv = args_.kv_heads;
    const int64_t state = ((b * Hkv + head) * Kd) * Vd;
    for (int64_t i = 0; i < Kd; ++i)
      if (args_.grad_final)
        load_row(static_cast<const A*>(args_.grad_final) + state + i * Vd, Vd, vp_, dS_ + i * vp_);
      else
        for (int64_t j = 0; j < vp_; ++j) dS_[i * vp_ + j] = 0;
    const int64_t begin = args_.tokens[b], count = args_.chunks[b + 1] - args_.chunks[b];
    int64_t last_row = args_.rows[b + 1];
    for (int64_t c = count - 1; c >= 0; --c) {
      const int64_t t0 = begin + c * C, n = args_.tokens[b + 1] - t0 < C ? args_.tokens[b + 1] - t0 : C;
      int64_t first_row = last_row;
      while (first_row > args_.rows[b] && (args_.read ? args_.read[first_row - 1] : first_row - 1) >= t0) --first_row;
      rows_.find(args_, first_row, last_row, t0, n);
      last_row = first_row;
      run_chunk(head, t0, n, args_.chunks[b] + c);
    }
    for (int64_t i = 0; i < Kd; ++i) store_row(dS_ + i * vp_, Vd, static_cast<A*>(args_.grad_initial) + state + i * Vd);
  }

 private:
  void run_chunk(int64_t head, int64_t t0, int64_t n, int64_t chunk) {
    load_chunk(head, t0, n, chunk);
    through_state(n);
    const int64_t group = args_.heads / args_.kv_heads;
    for (int64_t h = head * group; rows_.count() > 0 && h < (head + 1) * group; ++h) through_outputs(h, n);
    through_updates(head, t0, n);
    const int64_t Kd = args_.key_dim, Hkv = args_.kv_heads;
    for (int64_t i = 0; i < n; ++i)
      store_row(dK_ + i * kp_, Kd, static_cast<T*>(args_.grad_k) + ((t0 + i) * Hkv + head) * Kd);
    double sum = 0;  // G is the running sum of g
    for (int64_t i = n - 1; i >= 0; --i) {
      sum += dG_[i];
      static_cast<A*>(args_.grad_g)[(t0 + i) * Hkv + head] = static_cast<A>(sum);
    }
  }

  void load_chunk(int64_t head, int64_t t0, int64_t n, int64_t chunk) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, Hkv = args_.kv_heads;
    decay_.compute(static_cast<const A*>(args_.g) + t0 * Hkv + head, Hkv, n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t token = (t0 + i) * Hkv + head;
      w_[i] = static_cast<const A*>(args_.w)[token];
      load_row(static_cast<const T*>(args_.k) + token * Kd, Kd, kp_, K_ + i * kp_);
      load_row(static_cast<const T*>(args_.v) + token * Vd, Vd, vp_, V_ + i * vp_);
      load_row(static_cast<const A*>(args_.updates) + token * Vd, Vd, vp_, U_ + i * vp_);
      dG_[i] = 0;
    }
    const A* saved = static_cast<const A*>(args_.chunk_states) + ((chunk * Hkv + head) * Kd) * Vd;
    for (int64_t i = 0; i < Kd; ++i) load_row(saved + i * Vd, Vd, vp_, S_ + i * vp_);
    transpose(n, Kd, K_, kp_, KT_, C);
    transpose(n, Vd, U_, vp_, UT_, C);
    transpose(Kd, Vd, S_, vp_, ST_, kp_);
  }

  // S1 = e_last S0 + sum_j f_j k_j u_j^T: begins dK and dU, and turns dS (of S1) into its share of S0's.
  void through_state(int64_t n) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim;
    transpose(Kd, Vd, dS_, vp_, dST_, kp_);
    gemm<false>(n, vp_, Kd, K_, kp_, 1, dS_, vp_, dU_, vp_);
    gemm<false>(n, kp_, Vd, U_, vp_, 1, dST_, kp_, dK_, kp_);
    for (int64_t i = 0; i < n; ++i) {
      const A f = decay_.f[i];
      for (int64_t j = 0; j < vp_; ++j) dU_[i * vp_ + j] *= f;
      for (int64_t j = 0; j < kp_; ++j) dK_[i * kp_ + j] *= f;
      const double share = dot(kp_, K_ + i * kp_, dK_ + i * kp_);
      dG_[n - 1] += share;
      dG_[i] -= share;
    }
    const A e = decay_.e[n - 1];
    double share = 0;
    for (int64_t i = 0; i < Kd; ++i) share += static_cast<double>(dot(vp_, dS_ + i * vp_, S_ + i * vp_));
    dG_[n - 1] += share * static_cast<double>(e);
    for (int64_t i = 0; i < Kd * vp_; ++i) dS_[i] *= e;
  }

  // o_r = e_i S0^T q_r + sum_j B_rj u_j, one query head.
  void through_outputs(int64_t h, int64_t n) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, H = args_.heads, m = rows_.count(), width = padded<A>(n);
    for (int64_t r = 0; r < m; ++r) {
      load_row(static_cast<const T*>(args_.q) + ((rows_.begin + r) * H + h) * Kd, Kd, kp_, Q_ + r * kp_);
      load_row(static_cast<const T*>(args_.grad_o) + ((rows_.begin + r) * H + h) * Vd, Vd, vp_, dO_ + r * vp_);
    }
    decayed_products(m, n, Kd, Q_, kp_, KT_, decay_.D, rows_.token, M_);  // B
    gemm<true>(n, vp_, m, M_, 1, C, dO_, vp_, dU_, vp_);
    gemm<false>(m, width, Vd, dO_, vp_, 1, UT_, C, dM_, C);  // d(B), and times D that of q . k
    for (int64_t r = 0; r < m; ++r) spread_decay_gradient(rows_.token[r], rows_.token[r] + 1, r);
    gemm<false>(m, kp_, Vd, dO_, vp_, 1, ST_, kp_, X_, kp_);  // S0 do
    for (int64_t r = 0; r < m; ++r) {
      const int64_t i = rows_.token[r];
      for (int64_t j = 0; j < kp_; ++j) X_[r * kp_ + j] *= decay_.e[i];
      dG_[i] += dot(kp_, Q_ + r * kp_, X_ + r * kp_);
    }
    gemm<true>(n, kp_, m, dM_, 1, C, Q_, kp_, dK_, kp_);
    gemm<true>(m, kp_, n, dM_, C, 1, K_, kp_, X_, kp_);
    for (int64_t r = 0; r < m; ++r) {
      store_row(X_ + r * kp_, Kd, static_cast<T*>(args_.grad_q) + ((rows_.begin + r) * H + h) * Kd);
      for (int64_t j = 0; j < kp_; ++j) Q_[r * kp_ + j] *= decay_.e[rows_.token[r]];
    }
    gemm<true>(Kd, vp_, m, Q_, 1, kp_, dO_, vp_, dS_, vp_);
  }

  // Row r of dM holds d(M_ij), and row r of M the M_ij = D_ij x . k_j, for j < `limit`: adds what they give G, and
  // turns the row into the gradient of x . k_j (zero from `limit` on).
  void spread_decay_gradient(int64_t i, int64_t limit, int64_t r) {
    A *dm = dM_ + r * C, *m = M_ + r * C;
    const A* d = decay_.D + i * C;
    double sum = 0;
    for (int64_t j = 0; j < limit; ++j) {
      const double share = static_cast<double>(dm[j]) * static_cast<double>(m[j]);
      sum += share;
      dG_[j] -= share;
      dm[j] *= d[j];
    }
    dG_[i] += sum;
    for (int64_t j = limit; j < C; ++j) dm[j] = 0;
  }

  // u_i = w_i (v_i - e_i S0^T k_i - sum_j M_ij u_j), or w_i v_i: the gradients of v and w, and the rest of dK and dS.
  void through_updates(int64_t head, int64_t t0, int64_t n) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, Hkv = args_.kv_heads, width = padded<A>(n);
    if constexpr (Delta) {
      decayed_products(n, n, Kd, K_, kp_, KT_, decay_.D, nullptr, M_);
      clear_diagonal(n, M_);
      solve_lower_transposed(n, vp_, M_, w_, dU_);             // d(R), R the right side of the triangular system
      gemm<false>(n, vp_, Kd, K_, kp_, 1, S_, vp_, P_, vp_);   // S0^T k
      gemm<false>(n, width, Vd, dU_, vp_, 1, UT_, C, dM_, C);  // -d(M_ij) / w_i
    }
    for (int64_t i = 0; i < n; ++i) {
      A *dr = dU_ + i * vp_, *p = P_ + i * vp_, *v = V_ + i * vp_;
      A dw = dot(vp_, dr, v);
      if constexpr (Delta) {
        const A e = decay_.e[i], read = e * dot(vp_, dr, p);
        dw -= read;
        for (int64_t j = 0; j < i; ++j) dw -= dM_[i * C + j] * M_[i * C + j];
        dG_[i] -= static_cast<double>(w_[i] * read);
        for (int64_t j = 0; j < i; ++j) dM_[i * C + j] *= -w_[i];
        for (int64_t j = 0; j < vp_; ++j) p[j] = -w_[i] * e * dr[j];  // d(S0^T k_i)
      }
      for (int64_t j = 0; j < vp_; ++j) dr[j] *= w_[i];
      static_cast<A*>(args_.grad_w)[(t0 + i) * Hkv + head] = dw;
      store_row(dr, Vd, static_cast<T*>(args_.grad_v) + ((t0 + i) * Hkv + head) * Vd);
    }
    if constexpr (Delta) {
      for (int64_t i = 0; i < n; ++i) spread_decay_gradient(i, i, i);
      gemm<true>(n, kp_, n, dM_, C, 1, K_, kp_, dK_, kp_);
      gemm<true>(n, kp_, n, dM_, 1, C, K_, kp_, dK_, kp_);
      gemm<true>(n, kp_, Vd, P_, vp_, 1, ST_, kp_, dK_, kp_);
      gemm<true>(Kd, vp_, n, K_, 1, kp_, P_, vp_, dS_, vp_);
    }
  }

  const RecurrenceBackward& args_;
  const int64_t kp_, vp_;
  Scratch<A> scratch_;
  A *K_, *Q_, *dK_, *X_, *V_, *U_, *dU_, *dO_, *P_, *KT_, *UT_, *S_, *ST_, *dS_, *dST_, *M_, *dM_, *w_;
  Decays<A> decay_;
  double dG_[C];
  ChunkRows rows_;
};

}  // namespace oryx::ops::ORYX_ISA
