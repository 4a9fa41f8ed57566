#pragma once

// One token of a linear recurrence (decoding): the state is read from where it lies and written where it belongs, once.
// The mathematics is that of ops/common/chunk_scan.h with one token to the chunk. Included by cpu.cpp only.

#include "ops/common/recurrence_args.h"
#include "ops/common/rows.h"

namespace oryx::ops::ORYX_ISA {

template <typename T, typename A, bool Delta>
class StepUnit {
 public:
  explicit StepUnit(const RecurrenceForward& args)
      : args_(args), kp_(padded<A>(args.key_dim)), scratch_((1 + args.heads / args.kv_heads) * kp_) {}

  // Columns [v0, v0 + vd) of one sequence and key/value head.
  void run(int64_t b, int64_t head, int64_t v0, int64_t vd) {
    const int64_t Kd = args_.key_dim, H = args_.heads, Hkv = args_.kv_heads, token = args_.tokens[b] * Hkv + head;
    group_ = args_.rows[b + 1] > args_.rows[b] ? H / Hkv : 0;
    first_ = args_.rows[b] * H + head * (H / Hkv);
    load_padded(static_cast<const T*>(args_.k) + token * Kd, Kd, scratch_.get());
    for (int64_t h = 0; h < group_; ++h)
      load_padded(static_cast<const T*>(args_.q) + (first_ + h) * Kd, Kd, scratch_.get() + (1 + h) * kp_);
    const A g = static_cast<const A*>(args_.g)[token];
    decay_ = std::exp(g);
    w_ = static_cast<const A*>(args_.w)[token];
    const int64_t state = (b * Hkv + head) * Kd * args_.value_dim + v0;
    before_ = args_.initial ? static_cast<const A*>(args_.initial) + state : nullptr;
    const bool last = b * Hkv + head + 1 == args_.sequences * Hkv;
    next_ = before_ && !last ? before_ + Kd * args_.value_dim : nullptr;
    after_ = static_cast<A*>(args_.final_state) + state;
    v_ = static_cast<const T*>(args_.v) + token * args_.value_dim + v0;
    o_ = static_cast<T*>(args_.o) + first_ * args_.value_dim + v0;
    constexpr int L = kLanes<A>;
    int64_t j = 0;
    for (; j + 8 * L <= vd; j += 8 * L) columns<8>(j, Whole{});
    if (j + 4 * L <= vd) columns<4>(j, Whole{}), j += 4 * L;
    if (j + 2 * L <= vd) columns<2>(j, Whole{}), j += 2 * L;
    if (j + L <= vd) columns<1>(j, Whole{}), j += L;
    if (j < vd) columns<1>(j, Part{vd - j});
  }

 private:
  template <int Vectors, typename Size>
  void columns(int64_t j, Size size) {
    constexpr int L = kLanes<A>;
    const int64_t Kd = args_.key_dim, Vd = args_.value_dim;
    const A *k = scratch_.get(), *q = k + kp_;
    Vec<A> u[Vectors], o[Vectors];
    for (int v = 0; v < Vectors; ++v) u[v] = o[v] = Vec<A>{};
    if (Delta && before_) {
      for (int64_t i = 0; i < Kd; ++i)
        for (int v = 0; v < Vectors; ++v) u[v] += k[i] * get(before_ + i * Vd + j + v * L, size);
    }
    for (int v = 0; v < Vectors; ++v) u[v] = w_ * (Vec<A>(get(v_ + j + v * L, size)) - decay_ * u[v]);
    for (int64_t i = 0; i < Kd; ++i)
      for (int v = 0; v < Vectors; ++v) {
        Vec<A> s = k[i] * u[v];
        if (Delta && next_) __builtin_prefetch(next_ + i * Vd + j + v * L);
        if (before_) s += decay_ * get(before_ + i * Vd + j + v * L, size);
        put(after_ + i * Vd + j + v * L, s, size);
        if (group_ > 0) o[v] += q[i] * s;
      }
    for (int64_t h = 0; h < group_; ++h) {
      for (int v = 0; v < Vectors; ++v) put(o_ + h * Vd + j + v * L, o[v], size);
      if (h + 1 == group_) break;
      for (int v = 0; v < Vectors; ++v) o[v] = Vec<A>{};
      for (int64_t i = 0; i < Kd; ++i)
        for (int v = 0; v < Vectors; ++v) o[v] += q[(h + 1) * kp_ + i] * get(after_ + i * Vd + j + v * L, size);
    }
  }

  const RecurrenceForward& args_;
  const int64_t kp_;
  const Workspace<A> scratch_;  // the key, then the queries of its heads
  int64_t group_ = 0, first_ = 0;
  A decay_ = 0, w_ = 0;
  const A *before_ = nullptr, *next_ = nullptr;  // the next head's state comes while this one's second pass runs
  A* after_ = nullptr;
  const T* v_ = nullptr;
  T* o_ = nullptr;
};

}  // namespace oryx::ops::ORYX_ISA
