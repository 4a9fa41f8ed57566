#pragma once

#include <cstdint>

namespace oryx {

// Bytes of main memory that this process occupies now, and the most since the start or reset_peak_resident_memory(); 0
// where the system does not say.
int64_t resident_memory();
int64_t peak_resident_memory();
void reset_peak_resident_memory();

}  // namespace oryx
