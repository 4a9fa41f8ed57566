#pragma once

#include "ops/common/isa.h"
#include "ops/common/recurrence_args.h"

namespace oryx::ops {

ORYX_FOR_EACH_PAIR_ISA(void ssd_forward(const RecurrenceForward& args);
                       void ssd_backward(const RecurrenceBackward& args);)

}  // namespace oryx::ops
