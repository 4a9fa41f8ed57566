#include "ops/ssd/cpu.h"

#include "ops/common/recurrence_kernel.h"

namespace oryx::ops::ORYX_ISA {

void ssd_forward(const RecurrenceForward& args) {
  recurrence_forward_any</*Delta=*/false>(args);
}
void ssd_backward(const RecurrenceBackward& args) {
  recurrence_backward_any</*Delta=*/false>(args);
}

}  // namespace oryx::ops::ORYX_ISA
