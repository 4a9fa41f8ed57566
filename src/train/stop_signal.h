#pragma once

namespace oryx {

// While this lives, SIGINT and SIGTERM ask for a stop instead of ending the program; a second one ends it at once.
class StopSignal {
 public:
  StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  ~StopSignal();
  static int received();  // 0, SIGINT or SIGTERM
};

}  // namespace oryx
