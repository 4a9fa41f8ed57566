#include "ops/gated_delta_rule/cpu.h"

#include "ops/common/recurrence_kernel.h"

namespace oryx::ops::ORYX_ISA {

void gated_delta_rule_forward(const RecurrenceForward& args) {
  recurrence_forward_any</*Delta=*/true>(args);
}
void gated_delta_rule_backward(const RecurrenceBackward& args) {
  recurrence_backward_any</*Delta=*/true>(args);
}

}  // namespace oryx::ops::ORYX_ISA
