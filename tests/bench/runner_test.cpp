#include "bench/runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/progress.h"

namespace oryx::bench {
namespace {

Case sleeping(std::string& log, char name, int ms) {
  Case out;
  out.row.op = name;
  out.run = [&log, name, ms] {
    log += name;
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  };
  return out;
}

TEST(Measure, TakesSamplesInRoundsOverTheCases) {
  Progress::set_quiet(true);
  std::string log;
  std::vector<Case> cases{sleeping(log, 'a', 2), sleeping(log, 'b', 3)};
  measure("test", cases, c10::kCPU, {.budget_s = 0, .sample_s = 0.001, .min_samples = 3});
  for (const Case& c : cases) {
    ASSERT_EQ(c.row.seconds.size(), 3u);
    EXPECT_GE(c.row.ms(), cases[0].row.op == c.row.op ? 2 : 3);
  }
  EXPECT_EQ(log.substr(log.size() - 6), "ababab");
}

TEST(Measure, RepeatsShortCallsAndTakesLongOnesOnce) {
  Progress::set_quiet(true);
  std::string log;
  std::vector<Case> cases{sleeping(log, 'a', 1), sleeping(log, 'b', 40)};
  measure("test", cases, c10::kCPU, {.budget_s = 0.03, .sample_s = 0.01, .min_samples = 3, .long_call_s = 0.03});
  EXPECT_EQ(cases[0].row.seconds.size(), 3u);
  EXPECT_EQ(cases[1].row.seconds.size(), 1u);
  EXPECT_GT(std::count(log.begin(), log.end(), 'a'), 3 * 5);
}

}  // namespace
}  // namespace oryx::bench
