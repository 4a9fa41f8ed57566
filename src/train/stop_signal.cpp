#include "train/stop_signal.h"

#include <csignal>

namespace oryx {

static volatile std::sig_atomic_t g_signal = 0;

static void on_signal(int signal) {
  g_signal = signal;
  std::signal(signal, SIG_DFL);
}

StopSignal::StopSignal() {
  g_signal = 0;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

StopSignal::~StopSignal() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

int StopSignal::received() {
  return g_signal;
}

}  // namespace oryx
