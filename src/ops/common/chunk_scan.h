#pragma once

// The chunked form of a linear recurrence over a matrix state S [Kd, Vd], shared by gated_delta_rule and ssd:
//
//     S <- exp(g_t) S + k_t u_t^T,   o_t = S^T q_t,
//     u_t = w_t v_t                            (ssd, w = dt)
//     u_t = w_t (v_t - exp(g_t) S^T k_t)       (gated delta rule, w = beta, S before the token)
//
// Within a chunk that begins with state S0, and G_i the sum of g up to and including token i,
//
//     M_ij = exp(G_i - G_j) k_i . k_j  (j < i),      u_i = w_i (v_i - exp(G_i) S0^T k_i - sum_j M_ij u_j)
//     o_i = exp(G_i) S0^T q_i + sum_{j<=i} exp(G_i - G_j) (q_i . k_j) u_j
//     S1  = exp(G_C) S0 + sum_j exp(G_C - G_j) k_j u_j^T
//
// (Yang et al., "Gated Delta Networks", arXiv 2412.06464, section 3.3; Dao and Gu, "Transformers are SSMs", arXiv
// 2405.21060, section 6.) No exponent is positive, so strong decay underflows to zero and nothing overflows. The
// triangular system is solved directly for u, whose right side already holds the state, instead of through its inverse.
// One unit of work is one sequence and key/value head. Included by cpu.cpp only.

#include <memory>

#include "ops/common/gemm.h"
#include "ops/common/recurrence_args.h"

namespace oryx::ops::ORYX_ISA {

inline constexpr int64_t C = kChunk;

// Scratch of one thread, cache-line aligned, zeroed once: parts that a smaller chunk leaves untouched stay finite.
template <typename A>
class Scratch {
 public:
  explicit Scratch(int64_t elements)
      : data_(static_cast<A*>(::operator new(static_cast<size_t>(elements) * sizeof(A), std::align_val_t(64)))),
        next_(data_),
        end_(data_ + elements) {
    for (A* p = data_; p != end_; ++p) *p = 0;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { ::operator delete(data_, std::align_val_t(64)); }
  A* take(int64_t elements) {
    A* part = next_;
    next_ += elements;
    return part;
  }

 private:
  A *data_, *next_, *end_;
};

// Decays of one chunk: e_i = exp(G_i), f_i = exp(G_n-1 - G_i), D_ij = exp(G_i - G_j) for j <= i and 0 above. The sums
// are kept in double, since differences of large sums would lose the small ones.
template <typename A>
struct Decays {
  A *e, *f, *D;
  void compute(const A* g, int64_t stride, int64_t n) {
    double G[C] = {}, sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double x = static_cast<double>(g[i * stride]);
      sum += x < -1000.0 ? -1000.0 : x;  // exp is 0 there in any precision, and the sums stay finite
      G[i] = sum;
    }
    const int64_t width = padded<A>(n);
    for (int64_t i = 0; i < n; ++i) {
      e[i] = static_cast<A>(G[i]);
      f[i] = static_cast<A>(sum - G[i]);
      A* row = D + i * C;
      for (int64_t j = 0; j <= i; ++j) row[j] = static_cast<A>(G[i] - G[j]);
      for (int64_t j = 0; j < padded<A>(i + 1); j += kLanes<A>) vstore(row + j, vexp(vload(row + j)));
      for (int64_t j = i + 1; j < width; ++j) row[j] = 0;
    }
    for (int64_t j = 0; j < width; j += kLanes<A>) {
      vstore(f + j, vexp(vload(f + j)));
      vstore(e + j, vexp(vload(e + j)));
    }
  }
};

// Solves (I + diag(w) M) U = R in place (M strictly lower, leading dimension C), n rows of `width` columns.
template <typename A>
inline void solve_lower(int64_t n, int64_t width, const A* M, const A* w, A* U) {
  for (int64_t i0 = 0; i0 < n; i0 += 8) {
    const int64_t i1 = i0 + 8 < n ? i0 + 8 : n;
    A block[8 * C];
    if (i0 > 0) {
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t j = 0; j < i0; ++j) block[(i - i0) * C + j] = -w[i] * M[i * C + j];
      gemm<true>(i1 - i0, width, i0, block, C, 1, U, width, U + i0 * width, width);
    }
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = i0; j < i; ++j) axpy(width, -w[i] * M[i * C + j], U + j * width, U + i * width);
  }
}

// Solves (I + diag(w) M)^T X = Y in place.
template <typename A>
inline void solve_lower_transposed(int64_t n, int64_t width, const A* M, const A* w, A* X) {
  for (int64_t i0 = (n - 1) / 8 * 8; i0 >= 0; i0 -= 8) {
    const int64_t i1 = i0 + 8 < n ? i0 + 8 : n;
    A block[8 * C];
    if (i1 < n) {
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t j = i1; j < n; ++j) block[(i - i0) * C + j] = -w[j] * M[j * C + i];
      gemm<true>(i1 - i0, width, n - i1, block + i1, C, 1, X + i1 * width, width, X + i0 * width, width);
    }
    for (int64_t i = i1 - 1; i >= i0; --i)
      for (int64_t j = i + 1; j < i1; ++j) axpy(width, -w[j] * M[j * C + i], X + j * width, X + i * width);
  }
}

// out_ij = x_i . k_j times D at (token of row i, j); D is zero above the diagonal, which masks the future.
template <typename A>
inline void decayed_products(int64_t m, int64_t n, int64_t depth, const A* X, int64_t ldx, const A* KT, const A* D,
                             const int64_t* token, A* out) {
  const int64_t width = padded<A>(n);
  gemm<false>(m, width, depth, X, ldx, 1, KT, C, out, C);
  for (int64_t r = 0; r < m; ++r) {
    const A* d = D + (token ? token[r] : r) * C;
    for (int64_t j = 0; j < width; j += kLanes<A>) vstore(out + r * C + j, vload(out + r * C + j) * vload(d + j));
  }
}

template <typename A>
inline void clear_diagonal(int64_t n, A* M) {
  for (int64_t i = 0; i < n; ++i) M[i * C + i] = 0;
}

// The rows of a chunk's queries: local tokens of rows [begin, end).
struct ChunkRows {
  int64_t begin, end;
  int64_t token[C];
  int64_t count() const { return end - begin; }
  // Advances from `begin` over the rows that read tokens [t0, t0 + n).
  void find(const RecurrenceArgs& args, int64_t first, int64_t last, int64_t t0, int64_t n) {
    begin = end = first;
    while (end < last) {
      const int64_t t = args.read ? args.read[end] : end;
      if (t >= t0 + n) break;
      token[end - begin] = t - t0;
      ++end;
    }
  }
};

template <typename T, typename A, bool Delta>
class ForwardUnit {
 public:
  ForwardUnit(const RecurrenceForward& args, int64_t value_slices)
      : args_(args),
        slice_(padded<A>((args.value_dim + value_slices - 1) / value_slices)),
        kp_(padded<A>(args.key_dim)),
        scratch_(elements()) {
    K_ = scratch_.take(C * kp_), KT_ = scratch_.take(kp_ * C), U_ = scratch_.take(C * slice_);
    S_ = scratch_.take(kp_ * slice_), M_ = scratch_.take(C * C), Q_ = scratch_.take(C * kp_);
    O_ = scratch_.take(C * slice_), decay_.D = scratch_.take(C * C), decay_.e = scratch_.take(C);
    decay_.f = scratch_.take(C), w_ = scratch_.take(C);
  }

  // Columns [v0, v0 + slice) of the values: columns of the state do not depend on each other.
  void run(int64_t b, int64_t head, int64_t slice_index) {
    const int64_t v0 = slice_index * slice_, Kd = args_.key_dim, Vd = args_.value_dim, Hkv = args_.kv_heads;
    if (v0 >= Vd) return;
    const int64_t vd = v0 + slice_ < Vd ? slice_ : Vd - v0;
    const int64_t state = ((b * Hkv + head) * Kd) * Vd + v0;
    for (int64_t i = 0; i < Kd; ++i)
      if (args_.initial)
        load_row(static_cast<const A*>(args_.initial) + state + i * Vd, vd, slice_, S_ + i * slice_);
      else
        for (int64_t j = 0; j < slice_; ++j) S_[i * slice_ + j] = 0;
    int64_t chunk = args_.chunks[b], row = args_.rows[b];
    for (int64_t t0 = args_.tokens[b]; t0 < args_.tokens[b + 1]; t0 += C, ++chunk) {
      const int64_t n = args_.tokens[b + 1] - t0 < C ? args_.tokens[b + 1] - t0 : C;
      if (args_.chunk_states) {
        A* saved = static_cast<A*>(args_.chunk_states) + ((chunk * Hkv + head) * Kd) * Vd + v0;
        for (int64_t i = 0; i < Kd; ++i) store_row(S_ + i * slice_, vd, saved + i * Vd);
      }
      rows_.find(args_, row, args_.rows[b + 1], t0, n);
      row = rows_.end;
      run_chunk(head, t0, n, v0, vd);
    }
    for (int64_t i = 0; i < Kd; ++i)
      store_row(S_ + i * slice_, vd, static_cast<A*>(args_.final_state) + state + i * Vd);
  }

 private:
  int64_t elements() const { return 3 * C * kp_ + 2 * C * slice_ + kp_ * slice_ + 2 * C * C + 3 * C; }

  void run_chunk(int64_t head, int64_t t0, int64_t n, int64_t v0, int64_t vd) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, H = args_.heads, Hkv = args_.kv_heads;
    const A* g = static_cast<const A*>(args_.g) + t0 * Hkv + head;
    const A* w = static_cast<const A*>(args_.w) + t0 * Hkv + head;
    decay_.compute(g, Hkv, n);
    for (int64_t i = 0; i < n; ++i) {
      w_[i] = w[i * Hkv];
      load_row(static_cast<const T*>(args_.k) + ((t0 + i) * Hkv + head) * Kd, Kd, kp_, K_ + i * kp_);
      load_row(static_cast<const T*>(args_.v) + ((t0 + i) * Hkv + head) * Vd + v0, vd, slice_, U_ + i * slice_);
    }
    transpose(n, kp_, K_, kp_, KT_, C);
    if constexpr (Delta) {
      gemm<false>(n, slice_, Kd, K_, kp_, 1, S_, slice_, O_, slice_);  // S0^T k
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < slice_; ++j)
          U_[i * slice_ + j] = w_[i] * (U_[i * slice_ + j] - decay_.e[i] * O_[i * slice_ + j]);
      }
      decayed_products(n, n, Kd, K_, kp_, KT_, decay_.D, nullptr, M_);
      solve_lower(n, slice_, M_, w_, U_);
    } else {
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < slice_; ++j) U_[i * slice_ + j] *= w_[i];
    }
    if (args_.updates)
      for (int64_t i = 0; i < n; ++i)
        store_row(U_ + i * slice_, vd, static_cast<A*>(args_.updates) + ((t0 + i) * Hkv + head) * Vd + v0);
    const int64_t group = H / Hkv, m = rows_.count();
    for (int64_t h = head * group; m > 0 && h < (head + 1) * group; ++h) {
      for (int64_t r = 0; r < m; ++r)
        load_row(static_cast<const T*>(args_.q) + ((rows_.begin + r) * H + h) * Kd, Kd, kp_, Q_ + r * kp_);
      decayed_products(m, n, Kd, Q_, kp_, KT_, decay_.D, rows_.token, M_);
      for (int64_t r = 0; r < m; ++r)
        for (int64_t i = 0; i < kp_; ++i) Q_[r * kp_ + i] *= decay_.e[rows_.token[r]];
      gemm<false>(m, slice_, Kd, Q_, kp_, 1, S_, slice_, O_, slice_);
      gemm<true>(m, slice_, n, M_, C, 1, U_, slice_, O_, slice_);
      for (int64_t r = 0; r < m; ++r)
        store_row(O_ + r * slice_, vd, static_cast<T*>(args_.o) + ((rows_.begin + r) * H + h) * Vd + v0);
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < kp_; ++j) K_[i * kp_ + j] *= decay_.f[i];
    const A last = decay_.e[n - 1];
    for (int64_t i = 0; i < Kd * slice_; ++i) S_[i] *= last;
    gemm<true>(Kd, slice_, n, K_, 1, kp_, U_, slice_, S_, slice_);
  }

  const RecurrenceForward& args_;
  const int64_t slice_, kp_;
  Scratch<A> scratch_;
  A *K_, *KT_, *U_, *S_, *M_, *Q_, *O_, *w_;
  Decays<A> decay_;
  ChunkRows rows_;
};

}  // namespace oryx::ops::ORYX_ISA
