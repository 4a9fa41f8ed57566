#pragma once

#include "ops/common/isa.h"
#include "ops/common/recurrence_args.h"

namespace oryx::ops {

ORYX_FOR_EACH_PAIR_ISA(void gated_delta_rule_forward(const RecurrenceForward& args);
                       void gated_delta_rule_backward(const RecurrenceBackward& args);)

}  // namespace oryx::ops
