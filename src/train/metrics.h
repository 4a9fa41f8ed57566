#pragma once

#include <cstdio>
#include <filesystem>

#include "base/json.h"

namespace oryx {

// DIR/metrics.jsonl: one object a line, flushed as it is written.
class MetricsLog {
 public:
  // Lines of steps beyond `last_step` are dropped first (a resumed run writes them again), and so is a last line that
  // an interruption cut short.
  MetricsLog(const std::filesystem::path& path, int64_t last_step);
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;
  ~MetricsLog();
  void write(const Json& line);

 private:
  std::filesystem::path path_;
  std::FILE* file_;
};

}  // namespace oryx
