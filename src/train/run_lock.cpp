#include "train/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"

namespace oryx {

RunLock::RunLock(const std::filesystem::path& run)
    : descriptor_(open((run / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  require(descriptor_ >= 0, "{}: cannot be written: {}", (run / "lock").string(),
          std::generic_category().message(errno));
  // A file system that cannot lock does without.
  if (flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  close(descriptor_);
  input_error("{} is in use by another training process; stop it, or train into another --out", run.string());
}

RunLock::~RunLock() {
  close(descriptor_);
}

}  // namespace oryx
