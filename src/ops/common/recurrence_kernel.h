#pragma once

// Entry points of the recurrences' kernels: one unit of work for each sequence and key/value head. Included by cpu.cpp.

#include "ops/common/chunk_scan_backward.h"
#include "ops/common/parallel.h"

namespace oryx::ops::ORYX_ISA {

template <typename T, typename A, bool Delta>
void recurrence_forward(const RecurrenceForward& args) {
  const int64_t units = args.sequences * args.kv_heads, threads = num_threads();
  // With fewer units than threads the values' columns are divided: they are independent, at the price of computing
  // k . k and q . k once for each part.
  int64_t slices = units < threads ? (threads + units - 1) / units : 1;
  const int64_t vectors = padded<A>(args.value_dim) / kLanes<A>;
  if (slices > vectors) slices = vectors;
  parallel_for(units * slices, 1, [&](int64_t begin, int64_t end) {
    ForwardUnit<T, A, Delta> unit(args, slices);
    for (int64_t i = begin; i < end; ++i) unit.run(i / slices / args.kv_heads, i / slices % args.kv_heads, i % slices);
  });
}

template <typename T, typename A, bool Delta>
void recurrence_backward(const RecurrenceBackward& args) {
  parallel_for(args.sequences * args.kv_heads, 1, [&](int64_t begin, int64_t end) {
    BackwardUnit<T, A, Delta> unit(args);
    for (int64_t i = begin; i < end; ++i) unit.run(i / args.kv_heads, i % args.kv_heads);
  });
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
