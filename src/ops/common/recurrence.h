#pragma once

// What gated_delta_rule and ssd share above their kernels: checks, autograd, the ATen path and the reference loop.

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "ops/common/recurrence_args.h"

namespace oryx::ops {

struct RecurrenceKind {
  const char* op;  // name in messages
  const char* w;   // "beta" or "dt"
  bool delta;
  void (*forward)(const RecurrenceForward&);
  void (*backward)(const RecurrenceBackward&);
};

struct RecurrenceInputs {
  at::Tensor q, k, v, g, w, cu_seqlens;
  std::optional<at::Tensor> initial_state, read_index;
};

using RecurrenceResult = std::tuple<at::Tensor, at::Tensor>;

void check_recurrence(const RecurrenceKind& kind, const RecurrenceInputs& in);
RecurrenceResult recurrence_cpu(const RecurrenceKind& kind, const RecurrenceInputs& in);  // no gradients
RecurrenceResult recurrence_autograd_cpu(const RecurrenceKind& kind,
                                         const RecurrenceInputs& in);  // kind: static storage
RecurrenceResult recurrence_aten(const RecurrenceKind& kind, const RecurrenceInputs& in);
// With the kernels of recurrence_tiles.h, where they can do it.
bool can_use_tiles(const RecurrenceKind& kind, const RecurrenceInputs& in);
RecurrenceResult recurrence_tiles(const RecurrenceKind& kind, const RecurrenceInputs& in);

}  // namespace oryx::ops
