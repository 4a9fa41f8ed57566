#pragma once

// Entry points of the recurrences' kernels: one unit of work for each sequence and key/value head. Included by cpu.cpp.

#include <algorithm>
#include <optional>

#include "ops/common/chunk_scan_backward.h"
#include "ops/common/parallel.h"
#include "ops/common/recurrence_step.h"

namespace oryx::ops::ORYX_ISA {

template <typename T, typename A, bool Delta>
void recurrence_forward(const RecurrenceForward& args) {
  const int64_t units = args.sequences * args.kv_heads, threads = num_threads();
  // With fewer units than threads the values' columns are divided: they are independent, at the price of computing
  // k . k and q . k once for each part.
  int64_t slices = units < threads ? (threads + units - 1) / units : 1;
  const int64_t vectors = padded<A>(args.value_dim) / kLanes<A>;
  if (slices > vectors) slices = vectors;
  const int64_t width = ForwardUnit<T, A, Delta>::slice_width(args.value_dim, slices);
  const int64_t at_once = std::min(args.kv_heads, heads_at_once<A>(args.key_dim, width));
  parallel_for(units * slices, 1, [&](int64_t begin, int64_t end) {
    StepUnit<T, A, Delta> step(args);
    std::optional<ForwardUnit<T, A, Delta>> unit;  // its workspaces are more than a step's work: only for whole chunks
    for (int64_t i = begin, heads; i < end; i += heads) {
      const int64_t b = i / slices / args.kv_heads, head = i / slices % args.kv_heads, v0 = i % slices * width;
      heads = 1;
      if (v0 >= args.value_dim) continue;
      const int64_t vd = std::min(width, args.value_dim - v0);
      if (args.tokens[b + 1] - args.tokens[b] == 1 && !args.chunk_states) {
        step.run(b, head, v0, vd);
        continue;
      }
      if (slices == 1) heads = std::min({at_once, end - i, args.kv_heads - head});
      if (!unit) unit.emplace(args, width, at_once);
      unit->run(b, head, heads, v0, vd);
    }
  });
}

// gradient [count] = the sum of its shares [slices, count].
template <typename T, typename A>
void add_shares(const A* shares, int64_t slices, int64_t count, void* gradient) {
  parallel_for(count, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      A sum = 0;
      for (int64_t s = 0; s < slices; ++s) sum += shares[s * count + i];
      store(static_cast<T*>(gradient) + i, sum);
    }
  });
}

template <typename T, typename A, bool Delta>
void recurrence_backward(const RecurrenceBackward& args) {
  using Unit = BackwardUnit<T, A, Delta>;
  const int64_t units = args.sequences * args.kv_heads, threads = num_threads();
  const int64_t width = Unit::slice_width(args.value_dim, units < threads ? (threads + units - 1) / units : 1);
  const int64_t slices = (args.value_dim + width - 1) / width, tokens = args.tokens[args.sequences] * args.kv_heads;
  const int64_t keys = tokens * args.key_dim, queries = args.rows[args.sequences] * args.heads * args.key_dim;
  const Workspace<A> shares(slices > 1 ? slices * (queries + keys + 2 * tokens) : 0);
  typename Unit::Shares of;
  if (slices > 1) {
    of.q = shares.get(), of.k = of.q + slices * queries;
    of.g = of.k + slices * keys, of.w = of.g + slices * tokens;
  }
  const int64_t at_once = std::min(args.kv_heads, heads_at_once<A>(args.key_dim, width));
  parallel_for(units * slices, 1, [&](int64_t begin, int64_t end) {
    Unit unit(args, slices, of, at_once);
    for (int64_t i = begin, heads; i < end; i += heads) {
      const int64_t head = i / slices % args.kv_heads;
      heads = slices > 1 ? 1 : std::min({at_once, end - i, args.kv_heads - head});
      unit.run(i / slices / args.kv_heads, head, heads, i % slices);
    }
  });
  if (slices == 1) return;
  add_shares<T>(of.q, slices, queries, args.grad_q);
  add_shares<T>(of.k, slices, keys, args.grad_k);
  add_shares<A>(of.g, slices, tokens, args.grad_g);
  add_shares<A>(of.w, slices, tokens, args.grad_w);
}

template <bool Delta>
void recurrence_forward_any(const RecurrenceForward& args) {
  switch (args.storage) {
    case Storage::f32:
      return recurrence_forward<float, float, Delta>(args);
    case Storage::f64:
      return recurrence_forward<double, double, Delta>(args);
    case Storage::bf16:
      return recurrence_forward<Bf16, float, Delta>(args);
  }
}

template <bool Delta>
void recurrence_backward_any(const RecurrenceBackward& args) {
  switch (args.storage) {
    case Storage::f32:
      return recurrence_backward<float, float, Delta>(args);
    case Storage::f64:
      return recurrence_backward<double, double, Delta>(args);
    case Storage::bf16:
      return recurrence_backward<Bf16, float, Delta>(args);
  }
}

}  // namespace oryx::ops::ORYX_ISA
