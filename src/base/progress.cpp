#include "base/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>

#include "base/text.h"

namespace oryx {
namespace {

std::atomic<bool> quiet{false};

constexpr double kRedraw = 0.1;  // seconds, on a terminal

double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

size_t terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string bar(double fraction, size_t width) {
  const auto full = static_cast<size_t>(std::lround(fraction * static_cast<double>(width)));
  return fmt::format("[{}{}]", std::string(full, '='), std::string(width - full, ' '));
}

// The first `width` characters: a longer line would wrap, and could not be drawn over.
std::string_view fit(std::string_view text, size_t width) {
  size_t end = 0;
  for (size_t characters = 0; end < text.size() && characters < width; ++characters) {
    end += std::max<size_t>(1, utf8_sequence_length(text.substr(end)));
  }
  return text.substr(0, end);
}

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

}  // namespace

Progress::Progress(std::string title, int64_t total, int64_t done_already, double plain_interval)
    : title_(std::move(title)),
      total_(total),
      start_(done_already),
      done_(done_already),
      interval_(plain_interval),
      terminal_(isatty(STDERR_FILENO) == 1),
      begin_(std::chrono::steady_clock::now()),
      drawn_(begin_) {
  if (terminal_) draw(false);
}

Progress::~Progress() {
  if (!finished_ && terminal_ && !quiet) print("\n");
}

void Progress::say(const std::string& line) {
  if (!quiet) print((isatty(STDERR_FILENO) == 1 ? "\r\x1b[K" : "") + line + "\n");
}

void Progress::set_quiet(bool value) {
  quiet = value;
}

void Progress::update(int64_t done, const std::string& note) {
  done_ = done;
  if (!note.empty()) note_ = note;
  if (finished_ || seconds_between(drawn_, std::chrono::steady_clock::now()) < (terminal_ ? kRedraw : interval_))
    return;
  draw(false);
}

void Progress::finish(const std::string& note) {
  if (finished_) return;
  if (!note.empty()) note_ = note;
  finished_ = true;
  draw(true);
}

void Progress::draw(bool last) {
  if (quiet) return;
  drawn_ = std::chrono::steady_clock::now();
  const double elapsed = seconds_between(begin_, drawn_);
  const bool bounded = total_ > 0;
  const double fraction = bounded ? std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0) : 0;
  std::string counts = human_count(static_cast<double>(done_));
  if (bounded)
    counts =
        fmt::format("{:3.0f}% {}/{}", std::floor(100 * fraction), counts, human_count(static_cast<double>(total_)));
  std::string time;
  if (last) {
    time = "in " + human_duration(elapsed);
  } else if (bounded && done_ > start_ && done_ < total_) {
    const double rate = static_cast<double>(done_ - start_) / elapsed;
    time = human_duration(static_cast<double>(total_ - done_) / rate) + " left";
  }
  std::string line = title_ + " ";
  if (terminal_ && bounded) line += bar(fraction, std::clamp<size_t>(terminal_width() / 4, 8, 32)) + " ";
  line += counts;
  if (!note_.empty()) line += ", " + note_;
  if (!time.empty()) line += ", " + time;
  if (terminal_) {
    print(fmt::format("\r\x1b[K{}{}", fit(line, terminal_width() - 1), last ? "\n" : ""));
  } else {
    print(line + "\n");
  }
}

std::string human_count(double value) {
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  size_t unit = 0;
  double scaled = std::abs(value);
  // 999.5 would be rounded up to 1000 of the unit below.
  while (scaled >= 999.5 && unit + 1 < std::size(kUnits)) {
    scaled /= 1000;
    ++unit;
  }
  const bool whole = unit == 0 && scaled == std::floor(scaled);
  const int decimals = whole || scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2;
  return fmt::format("{}{:.{}f}{}", value < 0 ? "-" : "", scaled, decimals, kUnits[unit]);
}

std::string human_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 9.95) return fmt::format("{:.1f}s", seconds);
  if (seconds > 1e9) return "years";
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 100 * 3600) return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
  return fmt::format("{}d{:02}h", whole / 86400, whole % 86400 / 3600);
}

std::string human_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  double scaled = std::abs(bytes);
  while (scaled >= 1023.5 && unit + 1 < std::size(kUnits)) {
    scaled /= 1024;
    ++unit;
  }
  return fmt::format("{}{:.{}f} {}", bytes < 0 ? "-" : "", scaled, unit == 0 || scaled >= 99.95 ? 0 : 1, kUnits[unit]);
}

}  // namespace oryx
