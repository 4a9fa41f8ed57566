#include "bench/machine.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "bench/loops.h"

namespace oryx::bench {
namespace {

constexpr size_t kBlock = 48 << 20;

void touch_a_block() {
  const std::unique_ptr<char, decltype(&std::free)> block(static_cast<char*>(std::malloc(kBlock)), std::free);
  std::memset(block.get(), 1, kBlock);
  asm volatile("" ::"r"(block.get()) : "memory");  // or the compiler leaves it all out
}

// Memory that an earlier call freed, and that malloc kept, is counted again.
TEST(PeakBytes, CountsWhatACallTouches) {
  mallopt(M_MMAP_MAX, 0);  // as the program does
  mallopt(M_TRIM_THRESHOLD, -1);
  touch_a_block();
  const auto peak = peak_bytes(c10::kCPU, touch_a_block);
  if (!peak) GTEST_SKIP() << "/proc/self/clear_refs cannot be written here";
  EXPECT_NEAR(static_cast<double>(*peak), kBlock, 4 << 20);
  const auto nothing = peak_bytes(c10::kCPU, [] {});
  EXPECT_LT(*nothing, 4 << 20);
}

TEST(TimeCalls, CallsAsOftenAsAsked) {
  int calls = 0;
  EXPECT_GE(time_calls(c10::kCPU, 7, [&] { ++calls; }), 0);
  EXPECT_EQ(calls, 7);
}

TEST(Machine, IsPlausible) {
  EXPECT_GT(physical_memory(), 1 << 28);
  EXPECT_GE(last_level_cache(), 0);
  const OtherLoad load;
  time_calls(c10::kCPU, 100, touch_a_block);
  const auto cores = load.cores();
  EXPECT_LT(cores.value_or(0), 10000);
}

// The loops do their work: each returns a sum that is known.
TEST(Loops, ComputeWhatTheySay) {
  const Loops loops = best_loops();
  // acc <- acc / 2 + 1 converges to 2, in 12 registers.
  EXPECT_FLOAT_EQ(loops.multiply_add(100, 1.0f), static_cast<float>(2 * 12 * loops.lanes));
  const std::vector<float> ones(8 * 64 * 3, 1.0f);
  EXPECT_EQ(loops.read_streams(ones.data(), static_cast<int64_t>(ones.size())), static_cast<float>(ones.size()));
  if (loops.dot_bf16) {
    EXPECT_GT(loops.dot_bf16(100, 1.0f), 16 * 136.0f);
  }
}

}  // namespace
}  // namespace oryx::bench
