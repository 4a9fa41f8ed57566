#pragma once

#include <cstdio>
#include <filesystem>
#include <optional>

#include "base/json.h"
#include "train/event_file.h"

namespace oryx {

// What training measures: DIR/metrics.jsonl, one object a line, flushed as it is written, and the same numbers as event
// files in DIR/tensorboard over the steps, by the tags train/KEY and, for a table of numbers such as val_loss,
// TABLE/KEY.
class MetricsLog {
 public:
  // Lines of steps beyond `last_step` are dropped first (a resumed run writes them again), and so is a last line that
  // an interruption cut short.
  MetricsLog(const std::filesystem::path& run, int64_t last_step);
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;
  ~MetricsLog();
  void write(const Json& line);  // has a "step"

 private:
  std::filesystem::path run_, path_;
  std::FILE* file_;
  int64_t last_step_;
  std::optional<EventFile> events_;  // from the first line on: a finished run gets no empty files
};

// What a run's metrics.jsonl says: {tokens, steps, seconds, tokens_per_s, loss: [{tokens, loss}], validation: [{tokens,
// MODE: nats, ...}]}. The time is that of the training steps. InputError when it cannot be read.
Json read_metrics(const std::filesystem::path& run);

}  // namespace oryx
