#pragma once

// Backward pass of ops/common/chunk_scan.h, chunk by chunk from the last, carrying the gradient of the state. The
// forward pass kept each chunk's first state and each token's x; the rest is computed again. In the comments below d(x)
// is the gradient of x, and B_rj = exp(G_i - G_j) q_r . k_j for the row r that reads token i. Included by cpu.cpp only.

#include "ops/common/chunk_gradients.h"
#include "ops/common/chunk_scan.h"

namespace oryx::ops::ORYX_ISA {

template <typename T, typename A, bool Delta>
class BackwardUnit {
  // Products take pairs of bfloat16. The delta rule's gradients of gates and queries are differences that cancel where
  // keys are alike: the floats they depend on are kParts pairs each, which hold all bits (kFewer: all but the last
  // few). That pays where matrix tiles multiply them; elsewhere the delta rule's products are those of floats.
  static constexpr bool kPaired = kPairs<T> && (kMatrixTiles || !Delta);
  static constexpr int kParts = kPaired && Delta ? 3 : 1, kFewer = kParts == 1 ? 1 : 2;
  using E = std::conditional_t<kPaired, Pair, A>;
  static constexpr int64_t kPer = kPaired ? 2 : 1;
  static constexpr int kRows = kTileRows<E>;

 public:
  // Shares of gradients [slices, rows, Kd] and [slices, N, Hkv]; null where there is one slice.
  struct Shares {
    A *q = nullptr, *k = nullptr, *g = nullptr, *w = nullptr;
  };

  // With several slices, each unit has columns of the values, which d(v) and the state's gradient consist of, and a
  // share of the other gradients, which are sums over the columns.
  BackwardUnit(const RecurrenceBackward& args, int64_t slices, const Shares& shares, int64_t max_heads)
      : args_(args),
        shares_(shares),
        kp_(padded_keys<A>(args.key_dim)),
        vp_(slice_width(args.value_dim, slices)),
        ldk_(skewed<A>(kp_)),
        ldv_(skewed<A>(vp_)),
        kw_(kPaired ? kp_ / 2 : ldk_),
        vw_(kPaired ? vp_ / 2 : ldv_),
        side_(std::max({kp_, vp_, C})),
        scratch_(7 * C * ldk_ + (7 + kParts) * C * ldv_ + (1 + max_heads + kParts) * kp_ * ldv_ +
                 (1 + kParts) * vp_ * ldk_ + (3 + kParts) * side_ * side_ + 3 * C) {
    const auto elements = [&](int64_t n) { return scratch_.template take<E>(n / kPer); };
    for (A** part : {&K_, &Q_, &dK_, &dQ_}) *part = scratch_.take(C * ldk_);
    for (A** part : {&V_, &X_, &dU_, &Z_}) *part = scratch_.take(C * ldv_);
    S_ = scratch_.take(kp_ * ldv_), states_ = scratch_.take(max_heads * kp_ * ldv_);
    M_ = scratch_.take(C * C), dM_ = scratch_.take(C * C), decay_.D = scratch_.take(C * C);
    decay_.e = scratch_.take(C), decay_.f = scratch_.take(C), w_ = scratch_.take(C);
    KT_ = elements(kp_ * C), XT_ = elements(kParts * vp_ * C), dOE_ = elements(C * ldv_);
    ST_ = elements(kParts * vp_ * ldk_), dST_ = elements(vp_ * ldk_);
    if constexpr (!Delta) X_ = V_;
    if constexpr (kPaired) {
      KE_ = elements(C * ldk_), KC_ = elements(C * ldk_), QE_ = elements(C * ldk_), QC_ = elements(C * ldk_);
      XE_ = elements(kParts * C * ldv_), ZC_ = elements(kParts * C * ldv_), dOC_ = elements(C * ldv_);
      dSC_ = elements(kParts * kp_ * ldv_);
      left_ = elements(kParts * side_ * side_), spare_ = elements(kParts * side_ * side_);
    } else {
      KE_ = KC_ = K_, QE_ = QC_ = Q_, XE_ = X_, ZC_ = Z_, dOC_ = dOE_;
    }
  }

  static int64_t slice_width(int64_t value_dim, int64_t slices) {
    return padded_keys<A>((value_dim + slices - 1) / slices);
  }

  // `heads` key/value heads from `head` on, as in the forward pass.
  void run(int64_t b, int64_t head, int64_t heads, int64_t slice) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, Hkv = args_.kv_heads;
    const int64_t before = vd_;
    slice_ = slice, v0_ = slice * vp_, vd_ = std::min(vp_, Vd - v0_);
    if (vd_ < before) scratch_.clear();  // columns that a wider slice left behind are padding now
    const auto state = [&](int64_t h) { return (b * Hkv + h) * Kd * Vd + v0_; };
    for (int64_t h = head; h < head + heads; ++h) {
      choose_state(h - head);
      for (int64_t i = 0; i < Kd; ++i)
        if (args_.grad_final)
          load_padded(static_cast<const A*>(args_.grad_final) + state(h) + i * Vd, vd_, dS_ + i * ldv_);
        else
          fill_zero(dS_ + i * ldv_, vp_);
    }
    const int64_t begin = args_.tokens[b], count = args_.chunks[b + 1] - args_.chunks[b];
    int64_t last_row = args_.rows[b + 1];
    for (int64_t c = count - 1; c >= 0; --c) {
      const int64_t t0 = begin + c * C, n = args_.tokens[b + 1] - t0 < C ? args_.tokens[b + 1] - t0 : C;
      const int64_t chunk = args_.chunks[b] + c;
      int64_t first_row = last_row;
      while (first_row > args_.rows[b] && (args_.read ? args_.read[first_row - 1] : first_row - 1) >= t0) --first_row;
      rows_.find(args_, first_row, last_row, t0, n);
      last_row = first_row;
      for (int64_t h = head; h < head + heads; ++h) {
        choose_state(h - head);
        if (h + 1 < head + heads) {
          look_ahead(h + 1, t0, n, rows_.begin, rows_.count(), chunk);
        } else if (c > 0) {
          const int64_t rows = std::min(rows_.begin - args_.rows[b], C);  // of the chunk before
          look_ahead(head, t0 - C, C, rows_.begin - rows, rows, chunk - 1);
        } else {
          ahead_.stop();
        }
        run_chunk(h, t0, n, chunk);
      }
    }
    for (int64_t h = head; h < head + heads; ++h) {
      choose_state(h - head);
      for (int64_t i = 0; i < Kd; ++i)
        store_row(dS_ + i * ldv_, vd_, static_cast<A*>(args_.grad_initial) + state(h) + i * Vd);
    }
  }

 private:
  using Range = std::pair<int64_t, int64_t>;

  void choose_state(int64_t index) {
    dS_ = states_ + index * kp_ * ldv_;
    if constexpr (!kPaired) dSC_ = dS_;
  }

  void look_ahead(int64_t head, int64_t t, int64_t tokens, int64_t first_row, int64_t rows, int64_t chunk) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, H = args_.heads, Hkv = args_.kv_heads, size = sizeof(T);
    const int64_t wide = sizeof(A), group = H / Hkv, token = t * Hkv + head, row = first_row * H + head * group;
    ahead_.clear();
    ahead_.add(static_cast<const T*>(args_.k) + token * Kd, tokens, Kd * size, Hkv * Kd * size);
    ahead_.add(static_cast<const T*>(args_.v) + token * Vd + v0_, tokens, vd_ * size, Hkv * Vd * size);
    ahead_.add(static_cast<T*>(args_.grad_k) + token * Kd, tokens, Kd * size, Hkv * Kd * size);
    ahead_.add(static_cast<T*>(args_.grad_v) + token * Vd, tokens, Vd * size, Hkv * Vd * size);
    if (Delta) ahead_.add(static_cast<const A*>(args_.updates) + token * Vd, tokens, Vd * wide, Hkv * Vd * wide);
    ahead_.add(static_cast<const A*>(args_.chunk_states) + (chunk * Hkv + head) * Kd * Vd, Kd * Vd * wide);
    ahead_.add(static_cast<const T*>(args_.q) + row * Kd, rows, group * Kd * size, H * Kd * size);
    ahead_.add(static_cast<const T*>(args_.grad_o) + row * Vd, rows, group * Vd * size, H * Vd * size);
    ahead_.add(static_cast<T*>(args_.grad_q) + row * Kd, rows, group * Kd * size, H * Kd * size);
  }

  void run_chunk(int64_t head, int64_t t0, int64_t n, int64_t chunk) {
    load_chunk(head, t0, n, chunk);
    through_state(n);
    const int64_t group = args_.heads / args_.kv_heads;
    for (int64_t h = head * group; rows_.count() > 0 && h < (head + 1) * group; ++h) through_outputs(h, n);
    through_updates(head, t0, n);
    const int64_t Hkv = args_.kv_heads;
    for (int64_t i = 0; i < n; ++i)
      store_share(dK_ + i * ldk_, shares_.k, args_.tokens[args_.sequences] * Hkv, (t0 + i) * Hkv + head, args_.grad_k);
    double sum = 0;  // G is the running sum of g
    for (int64_t i = n - 1; i >= 0; --i) {
      sum += dG_[i];
      gate(shares_.g, args_.grad_g)[(t0 + i) * Hkv + head] = static_cast<A>(sum);
    }
  }

  // Row `row` of the gradient of keys or queries, or of this slice's share of it, which has `rows` rows.
  void store_share(const A* x, A* shares, int64_t rows, int64_t row, void* gradient) const {
    const int64_t Kd = args_.key_dim;
    if (shares)
      store_row(x, Kd, shares + (slice_ * rows + row) * Kd);
    else
      store_row(x, Kd, static_cast<T*>(gradient) + row * Kd);
  }
  A* gate(A* shares, void* gradient) const {
    return shares ? shares + slice_ * args_.tokens[args_.sequences] * args_.kv_heads : static_cast<A*>(gradient);
  }

  void load_chunk(int64_t head, int64_t t0, int64_t n, int64_t chunk) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, Hkv = args_.kv_heads;
    decay_.compute(static_cast<const A*>(args_.g) + t0 * Hkv + head, Hkv, n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t token = (t0 + i) * Hkv + head;
      const T *k = static_cast<const T*>(args_.k) + token * Kd, *v = static_cast<const T*>(args_.v) + token * Vd + v0_;
      if constexpr (Delta || !kPaired) load_padded(k, Kd, K_ + i * ldk_);
      load_padded(v, vd_, V_ + i * ldv_);
      if constexpr (Delta) load_padded(static_cast<const A*>(args_.updates) + token * Vd + v0_, vd_, X_ + i * ldv_);
      if constexpr (kPaired) {
        load_elements(k, Kd, kp_, KE_ + i * kw_);
        if constexpr (Delta)
          pair_columns<kParts>(vp_, X_ + i * ldv_, XE_ + i * vw_, C * vw_);
        else
          load_elements(v, vd_, vp_, XE_ + i * vw_);
      }
      w_[i] = static_cast<const A*>(args_.w)[token];
    }
    for (double& x : dG_) x = 0;
    const A* saved = static_cast<const A*>(args_.chunk_states) + ((chunk * Hkv + head) * Kd) * Vd + v0_;
    for (int64_t i = 0; i < Kd; ++i) load_padded(saved + i * Vd, vd_, S_ + i * ldv_);
    transpose(n, kp_ / kPer, KE_, kw_, KT_, C);
    for (int part = 0; part < kParts; ++part)
      transpose(n, vp_ / kPer, XE_ + part * C * vw_, vw_, XT_ + part * vp_ / kPer * C, C);
    transpose_state<kParts>(S_, ST_);
    if constexpr (kPaired) along_rows(n, kp_, reinterpret_cast<const Bf16*>(KE_), kp_, KC_, ldk_);
  }

  // S1 = e_last S0 + sum_j f_j w_j k_j x_j^T: begins dK and dU, and turns dS (of S1) into its share of S0's.
  void through_state(int64_t n) {
    const int64_t Kd = args_.key_dim;
    transpose_state<1>(dS_, dST_);
    if constexpr (kPaired) pair_rows<kParts>(kp_, vp_, dS_, ldv_, dSC_, ldv_, kp_ / 2 * ldv_);
    product<false>(n, vp_, all(Kd), Left{KE_, kw_}, Right{dSC_, ldv_, kParts, kp_ / 2 * ldv_}, dU_, ldv_);
    product<false>(n, kp_, all(vd_), Left{XE_, vw_}, Right{dST_, ldk_}, dK_, ldk_);
    for (int64_t i = 0; i < n; ++i) {
      const A f = decay_.f[i], fw = f * w_[i];
      for (int64_t j = 0; j < vp_; ++j) dU_[i * ldv_ + j] *= f;
      for (int64_t j = 0; j < kp_; ++j) dK_[i * ldk_ + j] *= fw;
      const double share = w_[i] * dot(vp_, X_ + i * ldv_, dU_ + i * ldv_);
      dG_[n - 1] += share;
      dG_[i] -= share;
    }
    const A e = decay_.e[n - 1];
    double share = 0;
    for (int64_t i = 0; i < Kd; ++i) {
      share += static_cast<double>(dot(vp_, dS_ + i * ldv_, S_ + i * ldv_));
      for (int64_t j = 0; j < vp_; ++j) dS_[i * ldv_ + j] *= e;
    }
    dG_[n - 1] += share * static_cast<double>(e);
  }

  // o_r = e_i S0^T q_r + sum_j B_rj w_j x_j, one query head.
  void through_outputs(int64_t h, int64_t n) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, H = args_.heads, m = rows_.count(), width = padded<A>(n);
    for (int64_t r = 0; r < m; ++r) {
      const T* q = static_cast<const T*>(args_.q) + ((rows_.begin + r) * H + h) * Kd;
      const T* grad = static_cast<const T*>(args_.grad_o) + ((rows_.begin + r) * H + h) * Vd + v0_;
      load_padded(q, Kd, Q_ + r * ldk_);
      if constexpr (kPaired) {
        load_elements(q, Kd, kp_, QE_ + r * kw_);
        load_elements(grad, vd_, vp_, dOE_ + r * vw_);
      } else {
        load_padded(grad, vd_, dOE_ + r * vw_);
      }
    }
    if constexpr (kPaired) {
      along_rows(m, kp_, reinterpret_cast<const Bf16*>(QE_), kp_, QC_, ldk_);
      along_rows(m, vp_, reinterpret_cast<const Bf16*>(dOE_), vp_, dOC_, ldv_);
    }
    const Left q{QE_, kw_}, grad{dOE_, vw_};
    const Right updates{XT_, C, kParts, vp_ / 2 * C}, states{ST_, ldk_, kParts, vp_ / 2 * ldk_}, grads{dOC_, ldv_};
    const auto past = [&](int64_t i) { return Range(0, rows_.last(i) + 1); };
    const auto future = [&](int64_t i) { return Range(rows_.from(i), m); };
    // B in M, d(B) in dM: panels with a token that the tile's rows read.
    for_tiles<A, kRows>(m, width, [&]<int Vectors>(int64_t i, int64_t j) {
      Tile<A, kRows, Vectors> tile;
      tile.zero();
      if (j >= rows_.seen(i)) {
        if (kPaired) tile.store(M_ + i * C + j, C);  // pairs of the transpose are read across tiles
        return;
      }
      multiply(tile, i, j, Range(0, Kd), q, Right{KT_, C});
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < Vectors; ++v) {
          const A* d = decay_.D + rows_.token[std::min(i + r, m - 1)] * C + j + v * kLanes<A>;
          vstore(M_ + (i + r) * C + j + v * kLanes<A>, tile.sum[r][v] * vload(d));
        }
      tile.zero();
      multiply(tile, i, j, Range(0, vd_), grad, updates);
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < Vectors; ++v) tile.sum[r][v] *= vload(w_ + j + v * kLanes<A>);
      tile.store(dM_ + i * C + j, C);
    });
    product<true>(n, vp_, future, transposed<kParts>(m, width, M_, C), grads, dU_, ldv_);
    for (int64_t r = 0; r < m; ++r) {
      const int64_t i = rows_.token[r];
      dG_[i] += spread_decay_gradient(i + 1, M_ + r * C, dM_ + r * C, dG_);
      scale_row(width, decay_.D + i * C, dM_ + r * C);  // becomes that of q . k, and of no later token
    }
    product<false>(m, kp_, all(vd_), grad, states, dQ_, ldk_);  // S0 do
    for (int64_t r = 0; r < m; ++r) {
      const A e = decay_.e[rows_.token[r]];
      for (int64_t j = 0; j < kp_; ++j) dQ_[r * ldk_ + j] *= e;
      dG_[rows_.token[r]] += dot(kp_, Q_ + r * ldk_, dQ_ + r * ldk_);
    }
    product<true>(n, kp_, future, transposed<1>(m, width, dM_, C), Right{QC_, ldk_}, dK_, ldk_);
    product<true>(m, kp_, past, rows<kFewer>(m, C, dM_, C), Right{KC_, ldk_}, dQ_, ldk_);
    for (int64_t r = 0; r < m; ++r) {
      store_share(dQ_ + r * ldk_, shares_.q, args_.rows[args_.sequences] * H, (rows_.begin + r) * H + h, args_.grad_q);
      const A e = decay_.e[rows_.token[r]];
      for (int64_t j = 0; j < kp_; ++j) Q_[r * ldk_ + j] *= e;
    }
    product<true>(Kd, vp_, all(m), transposed<kFewer>(m, kp_, Q_, ldk_), grads, dS_, ldv_);
  }

  static auto all(int64_t k) {
    return [k](int64_t) { return Range(0, k); };
  }

  // Operands of a product: element (i, p) of the left one is data[i * row + p * column]. Those of a float that consist
  // of several parts have them `part` elements apart.
  struct Left {
    const E* data;
    int64_t row, column = 1;
    int parts = 1;
    int64_t part = 0;
  };
  struct Right {
    const E* data;
    int64_t ld;
    int parts = 1;
    int64_t part = 0;
  };
  // x [m, k], both at most side_ and k whole vectors of pairs.
  template <int Count>
  Left rows(int64_t m, int64_t k, const A* x, int64_t ldx) {
    if constexpr (kPaired) {
      for (int64_t i = 0; i < m; ++i) pair_columns<Count>(k, x + i * ldx, left_ + i * k / 2, left_part());
      return {left_, k / 2, 1, Count, left_part()};
    } else {
      return {x, ldx};
    }
  }
  // The transpose of x [k, m], k at most C.
  template <int Count>
  Left transposed(int64_t k, int64_t m, const A* x, int64_t ldx) {
    if constexpr (kPaired) {
      along_rows<Count>(k, m, x, ldx, spare_, m, C / 2 * m);
      for (int part = 0; part < Count; ++part)
        transpose(C / 2, m, spare_ + part * C / 2 * m, m, left_ + part * left_part(), C / 2);
      return {left_, C / 2, 1, Count, left_part()};
    } else {
      return {x, 1, ldx};
    }
  }
  int64_t left_part() const { return side_ * side_ / 2; }
  // x [k, n] as pairs along its rows, zeros behind row k.
  template <int Count>
  static void along_rows(int64_t k, int64_t n, const A* x, int64_t ldx, Pair* to, int64_t ld, int64_t part) {
    pair_rows<Count>(k, n, x, ldx, to, ld, part);
    for (int i = 0; i < Count; ++i, to += part) fill_zero(to + (k + 1) / 2 * ld, (C / 2 - (k + 1) / 2) * ld);
  }
  static void along_rows(int64_t k, int64_t n, const Bf16* x, int64_t ldx, Pair* to, int64_t ld) {
    pair_rows(k, n, x, ldx, to, ld);
    fill_zero(to + (k + 1) / 2 * ld, (C / 2 - (k + 1) / 2) * ld);
  }
  // The transpose of a state or its gradient, as elements along the values.
  template <int Count>
  void transpose_state(const A* state, E* to) {
    if constexpr (kPaired) {
      const int64_t words = vp_ / 2;
      for (int64_t i = 0; i < kp_; ++i) pair_columns<Count>(vp_, state + i * ldv_, spare_ + i * words, kp_ * words);
      for (int part = 0; part < Count; ++part)
        transpose(kp_, words, spare_ + part * kp_ * words, words, to + part * words * ldk_, ldk_);
    } else {
      transpose(kp_, vp_, state, ldv_, to, ldk_);
    }
  }

  // What a tile of rows takes of a left operand, and a panel of a right one: the rows and columns from i and j on,
  // summed over `range`, which pairs round to whole ones or vectors of them: operands have zeros there.
  struct Piece {
    const E *left, *right;
    int64_t k;
    Piece(int64_t i, int64_t j, Range range, const Left& a, const Right& b) {
      constexpr int64_t kStep = kPaired && kMatrixTiles ? kLanes<Pair> : 1;
      const int64_t begin = range.first / (kPer * kStep) * kStep;
      left = a.data + i * a.row + begin * a.column, right = b.data + begin * b.ld + j;
      k = (range.second + kPer - 1) / kPer - begin;
    }
  };
  // tile += A B. Of two operands with parts, products of parts too small to count are left out.
  template <int Vectors>
  [[gnu::always_inline]] static void multiply(Tile<A, kRows, Vectors>& tile, int64_t i, int64_t j, Range range,
                                              const Left& a, const Right& b) {
    const Piece piece(i, j, range, a, b);
    if (kParts == 1 || b.parts == 1) {
      tile.multiply(piece.k, piece.left, a.row, a.column, piece.right, b.ld, Parts{a.parts, a.part, 0});
    } else {
      for (int p = 0; p < a.parts; ++p)
        tile.multiply(piece.k, piece.left + p * a.part, a.row, a.column, piece.right, b.ld,
                      Parts{b.parts - p, 0, b.part});
    }
  }

  // C[m, n] = A B or C + A B over those k of each tile of rows that `range(i)` = [begin, end) names; m is rounded up to
  // whole tiles.
  template <bool Accumulate, typename Over>
  void product(int64_t m, int64_t n, Over&& range, const Left& a, const Right& b, A* c, int64_t ldc) {
    for_tiles<A, kRows>(m, n, [&]<int Vectors>(int64_t i, int64_t j) {
      const Piece piece(i, j, range(i), a, b);
      const Parts parts = b.parts == 1 ? Parts{a.parts, a.part, 0} : Parts{b.parts, 0, b.part};
      multiply_tile<Accumulate, kRows, Vectors>(piece.k, piece.left, a.row, a.column, piece.right, b.ld,
                                                c + i * ldc + j, ldc, parts);
      ahead_.fetch(16);
    });
  }

  // Whether enough of S0 is left at the end of a tile of tokens for v - x to show it without loss of digits.
  static constexpr int kSteps = kTileRows<A>;
  bool keeps_state(int64_t i, int64_t n) const {
    return decay_.e[std::min(i / kSteps * kSteps + kSteps, n) - 1] > A(0.125);
  }

  // u_i = w_i x_i; and the delta rule's x_i = v_i - e_i S0^T k_i - sum_j M_ij u_j: the gradients of v and w, and the
  // rest of dK and dS.
  void through_updates(int64_t head, int64_t t0, int64_t n) {
    const int64_t Vd = args_.value_dim, Hkv = args_.kv_heads, end = round_up(n, kRows), width = padded<A>(n);
    for (int64_t i = n; i < end; ++i) fill_zero(dU_ + i * ldv_, vp_);
    if constexpr (Delta) {
      for_tiles<A>(n, vp_, [&]<int Vectors>(int64_t i, int64_t j) {
        if (keeps_state(i, n)) return;
        Tile<A, kSteps, Vectors> tile;
        tile.zero();
        if (decay_.e[i] > 0) tile.multiply(args_.key_dim, K_ + i * ldk_, ldk_, 1, S_ + j, ldv_);
        tile.store(Z_ + i * ldv_ + j, ldv_);  // S0^T k
      });
      key_products<By::row>(n, (args_.key_dim + kPer - 1) / kPer, KE_, kw_, KT_, decay_.D, w_, M_);  // -w_i M_ij
      fill_zero(M_ + n * C, (end - n) * C);
      solve_lower_transposed(n, vp_, ldv_, M_, dU_);  // d(u) with what later tokens' x take from it
      const Left du = rows<kParts>(n, vp_, dU_, ldv_);
      const Right updates{XT_, C, kParts, vp_ / 2 * C};
      for_tiles<A, kRows>(n, width, [&]<int Vectors>(int64_t i, int64_t j) {
        if (j >= i + kRows) return;
        Tile<A, kRows, Vectors> tile;
        tile.zero();
        multiply(tile, i, j, Range(0, vd_), du, updates);
        for (int r = 0; r < kRows; ++r)
          for (int v = 0; v < Vectors; ++v) tile.sum[r][v] *= vload(w_ + j + v * kLanes<A>);
        tile.store(dM_ + i * C + j, C);  // d(u_i) . u_j = -d(M_ij) / w_i
      });
    }
    for (int64_t i = 0; i < n; ++i) {
      A *dx = dU_ + i * ldv_, *v = V_ + i * ldv_;
      const A* x = X_ + i * ldv_;
      gate(shares_.w, args_.grad_w)[(t0 + i) * Hkv + head] = dot(vp_, dx, x);
      for (int64_t j = 0; j < vp_; ++j) dx[j] *= w_[i];
      store_row(dx, vd_, static_cast<T*>(args_.grad_v) + ((t0 + i) * Hkv + head) * Vd + v0_);
      if constexpr (Delta) {
        const double through_products = spread_decay_gradient(i, M_ + i * C, dM_ + i * C, dG_);
        if (keeps_state(i, n)) {
          // e_i S0^T k_i = v_i - x_i - sum_j M_ij u_j, and the sum's share cancels that of the products.
          for (int64_t j = 0; j < vp_; ++j) v[j] -= x[j];
          dG_[i] -= static_cast<double>(dot(vp_, dx, v));
        } else {
          dG_[i] += through_products - static_cast<double>(decay_.e[i] * dot(vp_, dx, Z_ + i * ldv_));
        }
        for (int64_t j = 0; j < vp_; ++j) Z_[i * ldv_ + j] = -decay_.e[i] * dx[j];  // d(S0^T k_i)
        A* dm = dM_ + i * C;
        scale_row(width, decay_.D + i * C, dm);
        for (int64_t j = 0; j < width; ++j) dm[j] *= -w_[i];
        dm[i] = 0;
      }
    }
    if constexpr (Delta) {
      fill_zero(dM_ + n * C, (end - n) * C);
      const auto past = [&](int64_t i) { return Range(0, std::min(i + kRows, n)); };
      const auto future = [&](int64_t i) { return Range(i, n); };
      product<true>(n, kp_, past, rows<1>(n, C, dM_, C), Right{KC_, ldk_}, dK_, ldk_);
      product<true>(n, kp_, future, transposed<1>(n, width, dM_, C), Right{KC_, ldk_}, dK_, ldk_);
      product<true>(n, kp_, all(vd_), rows<1>(n, vp_, Z_, ldv_), Right{ST_, ldk_}, dK_, ldk_);
      if constexpr (kPaired) along_rows<kParts>(n, vp_, Z_, ldv_, ZC_, ldv_, C / 2 * ldv_);
      product<true>(args_.key_dim, vp_, all(n), keys_transposed(), Right{ZC_, ldv_, kParts, C / 2 * ldv_}, dS_, ldv_);
    }
  }

  Left keys_transposed() {
    if constexpr (kPaired) {
      transpose(C / 2, kp_, KC_, ldk_, left_, C / 2);
      return {left_, C / 2};
    } else {
      return {K_, 1, ldk_};
    }
  }

  const RecurrenceBackward& args_;
  const Shares& shares_;
  const int64_t kp_, vp_;                     // padded dims
  const int64_t ldk_, ldv_, kw_, vw_, side_;  // distances of rows, and of rows of elements; the largest
  int64_t slice_ = 0, v0_ = 0, vd_ = 0;
  Scratch<A> scratch_;
  A *K_, *Q_, *dK_, *dQ_, *V_, *X_, *dU_, *Z_, *S_, *states_, *dS_ = nullptr, *M_, *dM_, *w_;
  // As elements of products: XE along the rows' columns, XC along the rows, XT the transpose.
  E *KE_, *KC_, *KT_, *QE_, *QC_, *XE_, *XT_, *ZC_, *dOE_, *dOC_, *ST_, *dSC_ = nullptr, *dST_;
  E *left_ = nullptr, *spare_ = nullptr;  // left operands made on the way
  Decays<A> decay_;
  double dG_[C];
  ChunkRows<kRows> rows_;
  Ahead ahead_;
  [[no_unique_address]] MatrixTiles tiles_;
};

}  // namespace oryx::ops::ORYX_ISA
