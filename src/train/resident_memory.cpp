#include "train/resident_memory.h"

#include <fstream>
#include <string>

namespace oryx {

// A line of /proc/self/status, "VmHWM:     123456 kB" (proc(5)).
static int64_t status_bytes(const char* name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kilobytes = 0;
    if (word == name && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

int64_t resident_memory() {
  return status_bytes("VmRSS:");
}

int64_t peak_resident_memory() {
  return status_bytes("VmHWM:");
}

void reset_peak_resident_memory() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace oryx
