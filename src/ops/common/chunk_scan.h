#pragma once

// The chunked form of a linear recurrence over a matrix state S [Kd, Vd], shared by gated_delta_rule and ssd:
//
//     S <- exp(g_t) S + k_t u_t^T,   o_t = S^T q_t,   u_t = w_t x_t
//     x_t = v_t                          (ssd, w = dt)
//     x_t = v_t - exp(g_t) S^T k_t       (gated delta rule, w = beta, S before the token)
//
// Within a chunk that begins with state S0, and G_i the sum of g up to and including token i,
//
//     M_ij = exp(G_i - G_j) k_i . k_j  (j < i),      x_i = v_i - exp(G_i) S0^T k_i - sum_j M_ij u_j
//     o_i = exp(G_i) S0^T q_i + sum_{j<=i} exp(G_i - G_j) (q_i . k_j) u_j
//     S1  = exp(G_C) S0 + sum_j exp(G_C - G_j) k_j u_j^T
//
// (Yang et al., "Gated Delta Networks", arXiv 2412.06464, section 3.3; Dao and Gu, "Transformers are SSMs", arXiv
// 2405.21060, section 6.) No exponent is positive, so strong decay underflows to zero and nothing overflows. The
// triangular system is solved directly for x, whose right side already holds the state, instead of through its inverse.
// One unit of work is one sequence and key/value head. Included by cpu.cpp only.
//
// bfloat16 inputs where pairs pay (ops/common/gemm.h): products of two inputs are exact; what only the output sees (the
// state that is read and, of ssd, u and its weights) is rounded to bfloat16 as the output is; the state and x stay
// float, so that nothing is lost from chunk to chunk.

#include <algorithm>
#include <type_traits>

#include "ops/common/pairs.h"
#include "ops/common/recurrence_args.h"

namespace oryx::ops::ORYX_ISA {

inline constexpr int64_t C = kChunk;

// Parts of one thread's scratch memory, whole vectors each, zeroed once: what a smaller chunk leaves untouched stays
// finite.
template <typename A>
class Scratch {
 public:
  explicit Scratch(int64_t elements) : elements_(elements), data_(elements), next_(data_.get()) { clear(); }
  void clear() { fill_zero(data_.get(), elements_); }
  template <typename E = A>
  E* take(int64_t elements) {
    static_assert(sizeof(E) == sizeof(A));
    next_ += elements;
    return reinterpret_cast<E*>(next_ - elements);
  }

 private:
  const int64_t elements_;
  Workspace<A> data_;
  A* next_;
};

// Key dims of workspaces: whole vectors, also as pairs, and whole tiles, since products run down them as well.
template <typename A>
constexpr int64_t padded_keys(int64_t n) {
  return round_up(n, std::max<int64_t>(2 * kLanes<A>, kTileRows<A>));
}

// The number of heads whose states fit beside each other in half of a core's second cache.
template <typename A>
constexpr int64_t heads_at_once(int64_t key_dim, int64_t slice_width) {
  const int64_t state = padded_keys<A>(key_dim) * skewed<A>(slice_width) * static_cast<int64_t>(sizeof(A));
  return std::max<int64_t>(1, (1 << 19) / state);
}

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
      const int64_t end = padded<A>(i + 1);
      for (int64_t j = 0; j < end; ++j) row[j] = static_cast<A>(G[i] - G[j]);
      for (int64_t j = 0; j < end; j += kLanes<A>) vstore(row + j, vexp(vload(row + j)));
      for (int64_t j = i + 1; j < width; ++j) row[j] = 0;
    }
    for (int64_t j = 0; j < width; j += kLanes<A>) {
      vstore(f + j, vexp(vload(f + j)));
      vstore(e + j, vexp(vload(e + j)));
    }
  }
};

// work.operator()<Vectors>(i, j) for tiles of Rows rows; m is rounded up to whole tiles, for which workspaces have
// room.
template <typename A, int Rows = kTileRows<A>, typename Work>
inline void for_tiles(int64_t m, int64_t n, Work&& work) {
  for_panels<A>(n, [&]<int Vectors>(int64_t j) {
    for (int64_t i = 0; i < m; i += Rows) work.template operator()<Vectors>(i, j);
  });
}

// The rows of a chunk's queries, in tiles of Rows: local tokens of rows [begin, end).
template <int Rows>
struct ChunkRows {
  int64_t begin, end;
  int64_t token[C];
  int64_t count() const { return end - begin; }
  // The last token of the tile of rows that begins with row i, and the first row that reads token t or a later one.
  int64_t last(int64_t i) const { return token[std::min(i + Rows, count()) - 1]; }
  // Columns that products with the tile's rows may read: whole tiles, since they are rows of the transposed product.
  int64_t seen(int64_t i) const { return round_up(last(i) + 1, Rows); }
  int64_t from(int64_t t) const { return std::lower_bound(token, token + count(), t) - token; }
  // Advances from `begin` over the rows that read tokens [t0, t0 + n).
  void find(const RecurrenceArgs& args, int64_t first, int64_t limit, int64_t t0, int64_t n) {
    begin = end = first;
    while (end < limit) {
      const int64_t t = args.read ? args.read[end] : end;
      if (t >= t0 + n) break;
      token[end - begin] = t - t0;
      ++end;
    }
  }
};

// Rows of the next chunk, on their way into the cache while this one is computed: with several heads, one head's rows
// lie too far apart for the processor to see them coming.
class Ahead {
 public:
  void clear() { count_ = stream_ = 0, row_ = at_ = 0; }
  void stop() { row_ = C; }
  // `rows` rows of `bytes` bytes, `stride` bytes apart.
  void add(const void* base, int64_t rows, int64_t bytes, int64_t stride) {
    streams_[count_++] = {static_cast<const char*>(base), rows, bytes, stride};
  }
  // `bytes` bytes in a row.
  void add(const void* base, int64_t bytes) { add(base, C, (bytes + C - 1) / C, (bytes + C - 1) / C); }
  // A few cache lines at a time: the processor waits once it has more under way than it can keep track of.
  void fetch(int lines) {
    while (lines > 0 && row_ < C) {
      const Stream& x = streams_[stream_];
      for (; lines > 0 && at_ < x.bytes && row_ < x.rows; at_ += 64, --lines)
        __builtin_prefetch(x.base + row_ * x.stride + at_, 0, 2);
      if (lines == 0) return;
      at_ = 0;
      if (++stream_ == count_) stream_ = 0, ++row_;
    }
  }

 private:
  struct Stream {
    const char* base;
    int64_t rows, bytes, stride;
  };
  Stream streams_[9];
  int count_ = 0, stream_ = 0;
  int64_t row_ = C, at_ = 0;
};

// M_ij = D_ij k_i . k_j times -w_i (By::row) or -w_j (By::column) for j < i < n; what stands on and above the diagonal
// has no meaning. K [n, depth] and its transpose KT have E's elements.
enum class By { row, column };
template <By by, typename E, typename A>
inline void key_products(int64_t n, int64_t depth, const E* K, int64_t ldk, const E* KT, const A* D, const A* w, A* M) {
  constexpr int kRows = kTileRows<E>;
  for_tiles<A, kRows>(n, padded<A>(n), [&]<int Vectors>(int64_t i, int64_t j) {
    if (j >= i + kRows) return;  // the future
    Tile<A, kRows, Vectors> tile;
    tile.zero();
    tile.multiply(depth, K + i * ldk, ldk, 1, KT + j, C);
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < Vectors; ++v) {
        const int64_t at = (i + r) * C + j + v * kLanes<A>;
        const Vec<A> scale = by == By::row ? splat(-w[i + r]) : -vload(w + j + v * kLanes<A>);
        vstore(M + at, tile.sum[r][v] * vload(D + at) * scale);
      }
  });
}

// Solves (I - M) X = R in place, M strictly lower: n rows of `width` columns.
template <typename A>
inline void solve_lower(int64_t n, int64_t width, const A* M, A* X) {
  constexpr int kRows = kTileRows<A>;
  for_tiles<A>(n, width, [&]<int Vectors>(int64_t i, int64_t j) {
    Tile<A, kRows, Vectors> tile;
    tile.load(X + i * width + j, width);
    tile.multiply(i, M + i * C, C, 1, X + j, width);
    for (int r = 1; r < kRows; ++r)
      for (int p = 0; p < r; ++p)
        for (int v = 0; v < Vectors; ++v) tile.sum[r][v] += M[(i + r) * C + i + p] * tile.sum[p][v];
    tile.store(X + i * width + j, width);
  });
}

template <typename T, typename A, bool Delta>
class ForwardUnit {
  using E = Element<T>;  // of the products that only the output sees
  static constexpr int64_t kPer = kPairs<T> ? 2 : 1;
  static constexpr int kRows = kTileRows<E>;
  // The delta rule's updates are differences that cancel where keys are alike: their sum is taken in float.
  static constexpr bool kFloatUpdates = kPairs<T> && Delta;

 public:
  static int64_t slice_width(int64_t value_dim, int64_t slices) { return padded<A>((value_dim + slices - 1) / slices); }

  ForwardUnit(const RecurrenceForward& args, int64_t slice_width, int64_t max_heads)
      : args_(args),
        slice_(slice_width),
        lds_(skewed<A>(slice_)),
        kp_(padded_keys<A>(args.key_dim)),
        scratch_(3 * C * kp_ + 3 * C * slice_ + (1 + max_heads) * kp_ * lds_ + 3 * C * C + 4 * C) {
    K_ = scratch_.take(C * kp_), U_ = scratch_.take(C * slice_);
    states_ = scratch_.take(max_heads * kp_ * lds_), M_ = scratch_.take(C * C), decay_.D = scratch_.take(C * C);
    decay_.e = scratch_.take(C), decay_.f = scratch_.take(C), w_ = scratch_.take(C);
    KT_ = scratch_.template take<E>(C * kp_ / kPer), Q_ = scratch_.template take<E>(C * kp_ / kPer);
    if constexpr (kPairs<T>) {
      KE_ = scratch_.template take<E>(C * kp_ / kPer), SE_ = scratch_.template take<E>(kp_ * lds_ / kPer);
      UE_ = scratch_.template take<E>(C * slice_ / kPer), ME_ = scratch_.template take<E>(C * C / kPer);
    } else {
      KE_ = K_, UE_ = U_, ME_ = M_;
    }
  }

  // Columns [v0, v0 + vd) of the values: columns of the state do not depend on each other. A chunk is taken for all of
  // `heads` key/value heads from `head` on before the next: tokens of neighbouring heads lie in the same pages.
  void run(int64_t b, int64_t head, int64_t heads, int64_t v0, int64_t vd) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, Hkv = args_.kv_heads, state = Kd * Vd;
    const auto offset = [&](int64_t x, int64_t h) { return (x * Hkv + h) * state + v0; };
    for (int64_t h = head; h < head + heads; ++h) {
      choose_state(h - head);
      for (int64_t i = 0; i < Kd; ++i)
        if (args_.initial)
          load_padded(static_cast<const A*>(args_.initial) + offset(b, h) + i * Vd, vd, S_ + i * lds_);
        else
          fill_zero(S_ + i * lds_, slice_);
    }
    int64_t chunk = args_.chunks[b], row = args_.rows[b];
    for (int64_t t0 = args_.tokens[b]; t0 < args_.tokens[b + 1]; t0 += C, ++chunk) {
      const int64_t n = args_.tokens[b + 1] - t0 < C ? args_.tokens[b + 1] - t0 : C;
      rows_.find(args_, row, args_.rows[b + 1], t0, n);
      row = rows_.end;
      for (int64_t h = head; h < head + heads; ++h) {
        choose_state(h - head);
        if (args_.chunk_states) {
          A* saved = static_cast<A*>(args_.chunk_states) + offset(chunk, h);
          for (int64_t i = 0; i < Kd; ++i) store_row(S_ + i * lds_, vd, saved + i * Vd);
        }
        if (h + 1 < head + heads)
          look_ahead(h + 1, t0, n, rows_.begin, rows_.count(), v0, vd);
        else
          look_ahead(head, t0 + n, args_.tokens[b + 1] - t0 - n, rows_.end, args_.rows[b + 1] - rows_.end, v0, vd);
        run_chunk(h, t0, n, v0, vd);
      }
    }
    for (int64_t h = head; h < head + heads; ++h) {
      choose_state(h - head);
      A* final_state = static_cast<A*>(args_.final_state) + offset(b, h);
      for (int64_t i = 0; i < Kd; ++i) store_row(S_ + i * lds_, vd, final_state + i * Vd);
    }
  }

 private:
  void choose_state(int64_t index) {
    S_ = states_ + index * kp_ * lds_;
    if constexpr (!kPairs<T>) SE_ = S_;
  }

  // At most one chunk of `tokens` tokens and `rows` rows will be next.
  void look_ahead(int64_t head, int64_t t, int64_t tokens, int64_t row, int64_t rows, int64_t v0, int64_t vd) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, H = args_.heads, Hkv = args_.kv_heads, size = sizeof(T);
    const int64_t group = H / Hkv, first = row * H + head * group;
    ahead_.clear();
    ahead_.add(static_cast<const T*>(args_.k) + (t * Hkv + head) * Kd, tokens, Kd * size, Hkv * Kd * size);
    ahead_.add(static_cast<const T*>(args_.v) + (t * Hkv + head) * Vd + v0, tokens, vd * size, Hkv * Vd * size);
    ahead_.add(static_cast<const T*>(args_.q) + first * Kd, rows, group * Kd * size, H * Kd * size);
    ahead_.add(static_cast<T*>(args_.o) + first * Vd, rows, group * Vd * size, H * Vd * size);
  }

  // Elements of a key's row, and those of them that are not padding.
  int64_t key_words() const { return kp_ / kPer; }
  int64_t key_depth() const { return (args_.key_dim + kPer - 1) / kPer; }

  void run_chunk(int64_t head, int64_t t0, int64_t n, int64_t v0, int64_t vd) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, Hkv = args_.kv_heads;
    const A* w = static_cast<const A*>(args_.w) + t0 * Hkv + head;
    decay_.compute(static_cast<const A*>(args_.g) + t0 * Hkv + head, Hkv, n);
    for (int64_t i = 0; i < n; ++i) {
      const T* k = static_cast<const T*>(args_.k) + ((t0 + i) * Hkv + head) * Kd;
      w_[i] = w[i * Hkv];
      load_padded(k, Kd, K_ + i * kp_);
      if constexpr (kPairs<T>) load_elements(k, Kd, kp_, KE_ + i * key_words());
      load_padded(static_cast<const T*>(args_.v) + ((t0 + i) * Hkv + head) * Vd + v0, vd, U_ + i * slice_);
    }
    fill_zero(U_ + n * slice_, (round_up(n, kTileRows<A>) - n) * slice_);
    transpose(n, key_words(), KE_, key_words(), KT_, C);
    if constexpr (Delta) {
      key_products<By::column>(n, key_depth(), KE_, key_words(), KT_, decay_.D, w_, M_);
      subtract_state(n);
      solve_lower(n, slice_, M_, U_);
    }
    if (args_.updates)
      for (int64_t i = 0; i < n; ++i)
        store_row(U_ + i * slice_, vd, static_cast<A*>(args_.updates) + ((t0 + i) * Hkv + head) * Vd + v0);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < slice_; ++j) U_[i * slice_ + j] *= w_[i];
    if (rows_.count() > 0) read_state(head, n, v0, vd);
    advance_state(n);
  }

  // x = v - e S0^T k.
  void subtract_state(int64_t n) {
    for_tiles<A>(n, slice_, [&]<int Vectors>(int64_t i, int64_t j) {
      Tile<A, kTileRows<A>, Vectors> tile;
      tile.zero();
      tile.multiply(args_.key_dim, K_ + i * kp_, kp_, 1, S_ + j, lds_);
      ahead_.fetch(16);
      for (int r = 0; r < kTileRows<A>; ++r)
        for (int v = 0; v < Vectors; ++v) {
          A* x = U_ + (i + r) * slice_ + j + v * kLanes<A>;
          vstore(x, vload(x) - tile.sum[r][v] * decay_.e[i + r]);
        }
    });
  }

  void read_state(int64_t head, int64_t n, int64_t v0, int64_t vd) {
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim, H = args_.heads, group = H / args_.kv_heads;
    const int64_t m = rows_.count();
    if constexpr (kPairs<T>) pair_rows(Kd, slice_, S_, lds_, SE_, lds_);
    if constexpr (kPairs<T> && !Delta) pair_rows(n, slice_, U_, slice_, UE_, slice_);
    for (int64_t h = head * group; h < (head + 1) * group; ++h) {
      for (int64_t r = 0; r < m; ++r)
        load_elements(static_cast<const T*>(args_.q) + ((rows_.begin + r) * H + h) * Kd, Kd, kp_, Q_ + r * key_words());
      weights(m, n);
      T* out = static_cast<T*>(args_.o) + (rows_.begin * H + h) * Vd + v0;
      for_tiles<A, kRows>(m, slice_, [&]<int Vectors>(int64_t i, int64_t j) {
        Tile<A, kRows, Vectors> tile;
        tile.zero();
        tile.multiply(key_depth(), Q_ + i * key_words(), key_words(), 1, SE_ + j, lds_);
        ahead_.fetch(16);
        for (int r = 0; r < kRows; ++r)
          for (int v = 0; v < Vectors; ++v) tile.sum[r][v] *= decay_.e[rows_.token[std::min(i + r, m - 1)]];
        add_updates<Vectors>(i, j, tile);
        for (int r = 0; r < kRows && i + r < m; ++r)
          for (int v = 0; v < Vectors; ++v) put_columns(out + (i + r) * H * Vd, j + v * kLanes<A>, vd, tile.sum[r][v]);
      });
    }
  }

  // += B u.
  template <int Vectors>
  [[gnu::always_inline]] void add_updates(int64_t i, int64_t j, Tile<A, kRows, Vectors>& tile) {
    if constexpr (!kFloatUpdates) {
      tile.multiply((rows_.last(i) + kPer) / kPer, ME_ + i * (C / kPer), C / kPer, 1, UE_ + j, slice_);
    } else {
      constexpr int kPart = kTileRows<A>;
      for (int part = 0; part < kRows; part += kPart) {
        Tile<A, kPart, Vectors> sums;
        std::copy(&tile.sum[part][0], &tile.sum[part][0] + kPart * Vectors, &sums.sum[0][0]);
        sums.multiply(rows_.last(i) + 1, M_ + (i + part) * C, C, 1, U_ + j, slice_);
        std::copy(&sums.sum[0][0], &sums.sum[0][0] + kPart * Vectors, &tile.sum[part][0]);
      }
    }
  }

  static void put_columns(T* row, int64_t j, int64_t end, Vec<A> x) {
    if (j + kLanes<A> <= end)
      put(row + j, x, Whole{});
    else if (j < end)
      put(row + j, x, Part{end - j});
  }

  // B_rj = exp(G_i - G_j) q_r . k_j for the row r that reads token i, zeros behind i.
  void weights(int64_t m, int64_t n) {
    for_tiles<A, kRows>(m, padded<A>(n), [&]<int Vectors>(int64_t i, int64_t j) {
      if (j >= rows_.seen(i)) return;
      Tile<A, kRows, Vectors> tile;
      tile.zero();
      tile.multiply(key_depth(), Q_ + i * key_words(), key_words(), 1, KT_ + j, C);
      ahead_.fetch(16);
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < Vectors; ++v) {
          const A* d = decay_.D + rows_.token[std::min(i + r, m - 1)] * C + j + v * kLanes<A>;
          vstore(M_ + (i + r) * C + j + v * kLanes<A>, tile.sum[r][v] * vload(d));
        }
    });
    if constexpr (kPairs<T> && !Delta)
      for (int64_t r = 0; r < m; ++r) {
        const int64_t end = padded<A>(rows_.last(r / kRows * kRows) + 1);
        pair_columns(end, M_ + r * C, ME_ + r * C / 2);
        if (kMatrixTiles) fill_zero(ME_ + (r * C + end) / 2, (C - end) / 2);
      }
  }

  // S <- e S + k^T (f u). Leaves f u in the place of u.
  void advance_state(int64_t n) {
    const Vec<A> last = splat(decay_.e[n - 1]);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < slice_; ++j) U_[i * slice_ + j] *= decay_.f[i];
    for_tiles<A>(args_.key_dim, slice_, [&]<int Vectors>(int64_t i, int64_t j) {
      Tile<A, kTileRows<A>, Vectors> tile;
      tile.load(S_ + i * lds_ + j, lds_);
      for (int r = 0; r < kTileRows<A>; ++r)
        for (int v = 0; v < Vectors; ++v) tile.sum[r][v] *= last;
      tile.multiply(n, K_ + i, 1, kp_, U_ + j, slice_);
      ahead_.fetch(16);
      tile.store(S_ + i * lds_ + j, lds_);
    });
  }

  const RecurrenceForward& args_;
  const int64_t slice_, lds_, kp_;
  Scratch<A> scratch_;
  A *K_, *U_, *states_, *S_ = nullptr, *M_, *w_;
  E *KT_, *Q_, *KE_, *SE_, *UE_, *ME_;  // KE to ME: the float workspaces of the same letter as products take them
  Decays<A> decay_;
  ChunkRows<kRows> rows_;
  Ahead ahead_;
  [[no_unique_address]] MatrixTiles tiles_;
};

}  // namespace oryx::ops::ORYX_ISA
