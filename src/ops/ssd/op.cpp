#include "ops/ssd/op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "ops/common/recurrence.h"
#include "ops/ssd/cpu.h"

namespace oryx::ops {
namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

const RecurrenceKind& kind() {
  static const RecurrenceKind kind{"oryx::ssd", "dt", false, ORYX_PAIR_KERNEL(ssd_forward),
                                   ORYX_PAIR_KERNEL(ssd_backward)};
  return kind;
}

template <RecurrenceResult (*Path)(const RecurrenceKind&, const RecurrenceInputs&)>
RecurrenceResult call(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& dt,
                      const Tensor& cu_seqlens, const Optional& initial_state, const Optional& read_index) {
  return Path(kind(), {q, k, v, g, dt, cu_seqlens, initial_state, read_index});
}

TORCH_LIBRARY_FRAGMENT(oryx, m) {
  m.def(
      "ssd(Tensor q, Tensor k, Tensor v, Tensor g, Tensor dt, Tensor cu_seqlens, "
      "Tensor? initial_state=None, Tensor? read_index=None) -> (Tensor o, Tensor final_state)");
}
TORCH_LIBRARY_IMPL(oryx, CPU, m) {
  m.impl("ssd", call<recurrence_cpu>);
}
TORCH_LIBRARY_IMPL(oryx, AutogradCPU, m) {
  m.impl("ssd", call<recurrence_autograd_cpu>);
}
TORCH_LIBRARY_IMPL(oryx, CompositeImplicitAutograd, m) {
  m.impl("ssd", call<recurrence_aten>);
}

}  // namespace

RecurrenceResult ssd(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& dt,
                     const Tensor& cu_seqlens, const Optional& initial_state, const Optional& read_index) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("oryx::ssd", "").typed<decltype(ssd)>();
  return op.call(q, k, v, g, dt, cu_seqlens, initial_state, read_index);
}

RecurrenceResult ssd_aten(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& dt,
                          const Tensor& cu_seqlens, const Optional& initial_state, const Optional& read_index) {
  return call<recurrence_aten>(q, k, v, g, dt, cu_seqlens, initial_state, read_index);
}

}  // namespace oryx::ops
