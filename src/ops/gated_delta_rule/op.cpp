#include "ops/gated_delta_rule/op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "ops/common/recurrence.h"
#include "ops/gated_delta_rule/cpu.h"

namespace oryx::ops {
namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

const RecurrenceKind& kind() {
  static const RecurrenceKind kind{"oryx::gated_delta_rule", "beta", true, ORYX_PAIR_KERNEL(gated_delta_rule_forward),
                                   ORYX_PAIR_KERNEL(gated_delta_rule_backward)};
  return kind;
}

template <RecurrenceResult (*Path)(const RecurrenceKind&, const RecurrenceInputs&)>
RecurrenceResult call(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& beta,
                      const Tensor& cu_seqlens, const Optional& initial_state, const Optional& read_index) {
  return Path(kind(), {q, k, v, g, beta, cu_seqlens, initial_state, read_index});
}

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def(
      "gated_delta_rule(Tensor q, Tensor k, Tensor v, Tensor g, Tensor beta, Tensor cu_seqlens, "
      "Tensor? initial_state=None, Tensor? read_index=None) -> (Tensor o, Tensor final_state)");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("gated_delta_rule", call<recurrence_cpu>);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("gated_delta_rule", call<recurrence_autograd_cpu>);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("gated_delta_rule", call<recurrence_aten>);
}

}  // namespace

RecurrenceResult gated_delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g,
                                  const Tensor& beta, const Tensor& cu_seqlens, const Optional& initial_state,
                                  const Optional& read_index) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("oryx::gated_delta_rule", "").typed<decltype(gated_delta_rule)>();
  return op.call(q, k, v, g, beta, cu_seqlens, initial_state, read_index);
}

RecurrenceResult gated_delta_rule_aten(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g,
                                       const Tensor& beta, const Tensor& cu_seqlens, const Optional& initial_state,
                                       const Optional& read_index) {
  return call<recurrence_aten>(q, k, v, g, beta, cu_seqlens, initial_state, read_index);
}

}  // namespace oryx::ops
