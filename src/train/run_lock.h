#pragma once

#include <filesystem>

namespace oryx {

// Keeps other processes from training into the same folder. The system lets go of it when the process ends, however it
// ends. InputError when another process has it.
class RunLock {
 public:
  explicit RunLock(const std::filesystem::path& run);
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  ~RunLock();

 private:
  int descriptor_;
};

}  // namespace oryx
