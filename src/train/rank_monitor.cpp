#include "train/rank_monitor.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>

namespace oryx {
namespace {

constexpr std::chrono::seconds kInterval{1}, kStart{300};
constexpr const char* kFailure = "oryx/failure";

std::string alive_key(int rank) {
  return fmt::format("oryx/alive/{}", rank);
}

// Not exit(): other threads wait for ranks that will never come.
[[noreturn]] void end_process(int rank, const std::string& why) {
  std::fprintf(stderr, "oryx: rank %d stops: %s\n", rank, why.c_str());
  std::fflush(stderr);
  ::_exit(1);
}

}  // namespace

RankMonitor::RankMonitor(c10::intrusive_ptr<c10d::Store> store, int rank, int ranks)
    : store_(std::move(store)), rank_(rank), ranks_(ranks) {
  store_->set(alive_key(rank_), "0");
  for (int r = rank_ == 0 ? 1 : 0; r < (rank_ == 0 ? ranks_ : 1); ++r) watched_.push_back({r, "", Clock::now()});
  wait_for_start();
  thread_ = std::thread([this] { run(); });
}

RankMonitor::~RankMonitor() {
  stop();
}

void RankMonitor::wait_for_start() {
  std::vector<std::string> keys;
  for (const Watched& w : watched_) keys.push_back(alive_key(w.rank));
  try {
    store_->wait(keys, kStart);
  } catch (const std::exception&) {
    size_t missing = 0;
    std::string example;
    for (size_t i = 0; i < keys.size(); ++i)
      if (!store_->check({keys[i]}) && ++missing == 1) example = std::to_string(watched_[i].rank);
    throw std::runtime_error(
        fmt::format("rank {} waited {} s for the other ranks, and {} of {} did not start, rank {} for one", rank_,
                    kStart.count(), missing, ranks_, example));
  }
}

void RankMonitor::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  stopping_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool RankMonitor::wait_or_stop(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return stopping_.wait_for(lock, time, [this] { return stopped_; });
}

void RankMonitor::fail(const std::string& message) {
  stop();
  try {
    store_->compareSet(kFailure, "", fmt::format("rank {} failed: {}", rank_, message));
    // The store ends with the process that serves it.
    if (rank_ == 0) std::this_thread::sleep_for(3 * kInterval);
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): nobody is left to be told
  }
}

void RankMonitor::run() {
  try {
    watch();
  } catch (const std::exception&) {
    if (!wait_or_stop(std::chrono::milliseconds(0)))
      end_process(rank_, "rank 0 is gone (or the launcher, where it keeps the ranks together): the connection broke");
  }
}

void RankMonitor::watch() {
  std::vector<std::string> keys;
  for (Watched& w : watched_) keys.push_back(alive_key(w.rank)), w.changed = Clock::now();
  for (int64_t beat = 1;; ++beat) {
    store_->set(alive_key(rank_), std::to_string(beat));
    if (store_->check({kFailure})) end_process(rank_, store_->get_to_str(kFailure));
    const auto beats = store_->multiGet(keys);
    const auto now = Clock::now();
    for (size_t i = 0; i < watched_.size(); ++i) {
      Watched& w = watched_[i];
      std::string seen(beats[i].begin(), beats[i].end());
      if (seen != w.beat) {
        w.beat = std::move(seen), w.changed = now;
      } else if (now - w.changed > kSilence) {
        const std::string why =
            fmt::format("nothing was heard of rank {} for {} s: it was killed, or its machine cannot be reached",
                        w.rank, kSilence.count());
        store_->compareSet(kFailure, "", why);
        if (rank_ == 0) std::this_thread::sleep_for(3 * kInterval);  // as in fail()
        end_process(rank_, why);
      }
    }
    if (wait_or_stop(kInterval)) return;
  }
}

}  // namespace oryx
