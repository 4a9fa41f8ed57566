#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace oryx {

// Progress of long work on standard error: on a terminal one line drawn again in place at most ten times a second (bar,
// percent, `note`, time left), otherwise a plain line at most every `plain_interval` seconds and one at the end.
class Progress {
 public:
  // `total` in any unit (tokens, examples); the time left is extrapolated from the work done by this object.
  Progress(std::string title, int64_t total, int64_t done_already = 0, double plain_interval = 10);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the line if finish() was not reached
  void update(int64_t done, const std::string& note = "");
  void finish(const std::string& note = "");
  // A line of its own on standard error, above the line that some Progress may be drawing.
  static void say(const std::string& line);
  static void set_quiet(bool quiet);  // no output at all

 private:
  void draw(bool last);

  std::string title_, note_;
  int64_t total_, start_, done_;
  double interval_;
  bool terminal_, finished_ = false;
  std::chrono::steady_clock::time_point begin_, drawn_;
};

std::string human_count(double value);       // 1.23M, 456k
std::string human_duration(double seconds);  // 1h02m, 3m05s, 12s
std::string human_bytes(double bytes);       // 1.2 GiB

}  // namespace oryx
