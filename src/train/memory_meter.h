#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>

namespace oryx {

// Counts the bytes of the tensors that this thread (and its backward passes) allocates and frees on one kind of device
// while the meter lives.
class MemoryMeter {
 public:
  explicit MemoryMeter(at::DeviceType device);
  int64_t live() const { return counts_->live; }  // allocated since the meter began, less what was freed
  int64_t peak() const { return counts_->peak; }  // the most at once since the meter began or reset_peak
  void reset_peak() { counts_->peak = counts_->live; }

 private:
  struct Counts : c10::MemoryReportingInfoBase {
    explicit Counts(at::DeviceType type) : device(type) {}
    void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device where) override {
      if (where.type() != device) return;
      live += size;
      if (live > peak) peak = live;
    }
    bool memoryProfilingEnabled() const override { return true; }
    at::DeviceType device;
    int64_t live = 0, peak = 0;
  };
  std::shared_ptr<Counts> counts_;
  c10::DebugInfoGuard guard_;
};

inline MemoryMeter::MemoryMeter(at::DeviceType device)
    : counts_(std::make_shared<Counts>(device)), guard_(c10::DebugInfoKind::PROFILER_STATE, counts_) {}

}  // namespace oryx
