#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

namespace oryx {

// A thread that tells the other ranks, through the store, that this one lives, and ends this process when one of them
// does not: a collective operation over NCCL, or a machine that lost its power, would be waited for much longer. Rank 0
// watches all others, and they watch rank 0; whoever sees a failure writes it down for everybody.
class RankMonitor {
 public:
  static constexpr std::chrono::seconds kSilence{15};  // after which a rank is taken for dead

  // Waits for the ranks that it watches to start, for 5 minutes at most.
  RankMonitor(c10::intrusive_ptr<c10d::Store> store, int rank, int ranks);
  RankMonitor(const RankMonitor&) = delete;
  RankMonitor& operator=(const RankMonitor&) = delete;
  ~RankMonitor();  // stops
  void stop();     // watching, without a word to the others
  // Stops, and lets the others know why this rank will end; returns when they can have read it.
  void fail(const std::string& message);

 private:
  using Clock = std::chrono::steady_clock;
  struct Watched {
    int rank;
    std::string beat;
    Clock::time_point changed;
  };
  void wait_for_start();
  void run();
  void watch();
  bool wait_or_stop(std::chrono::milliseconds time);

  c10::intrusive_ptr<c10d::Store> store_;
  int rank_, ranks_;
  std::vector<Watched> watched_;
  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace oryx
