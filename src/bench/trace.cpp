#include "bench/trace.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "base/error.h"

namespace oryx::bench {
namespace {

namespace profiler = torch::autograd::profiler;

struct Total {
  int64_t calls = 0;
  double ms = 0;
};

double ms(uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e6;
}

// "torch::autograd::CppNode<oryx::ops::(anonymous namespace)::RopeFunction>" is the backward pass of one of ours.
std::string short_name(std::string name) {
  const std::string node = "torch::autograd::CppNode<";
  const size_t at = name.find(node);
  if (at == std::string::npos) return name;
  const size_t begin = name.rfind("::") + 2;
  return name.substr(0, at) + name.substr(begin, name.size() - 1 - begin) + " backward";
}

std::map<std::string, Total> kernel_times(const std::vector<profiler::KinetoEvent>& events) {
  std::map<std::string, Total> totals;
  for (const auto& event : events) {
    if (event.deviceType() == c10::DeviceType::CPU || event.isHiddenEvent()) continue;
    Total& total = totals[event.name()];
    ++total.calls, total.ms += ms(event.durationNs());
  }
  return totals;
}

// Of every event less those inside it, by thread.
std::map<std::string, Total> self_times(const std::vector<profiler::KinetoEvent>& events) {
  std::map<uint64_t, std::vector<const profiler::KinetoEvent*>> threads;
  for (const auto& event : events)
    if (event.deviceType() == c10::DeviceType::CPU) threads[event.startThreadId()].push_back(&event);
  std::map<std::string, Total> totals;
  for (auto& [thread, list] : threads) {
    std::ranges::stable_sort(list, [](const auto* a, const auto* b) {
      return std::pair(a->startNs(), b->durationNs()) < std::pair(b->startNs(), a->durationNs());  // outer ones first
    });
    std::vector<const profiler::KinetoEvent*> open;
    for (const auto* event : list) {
      while (!open.empty() && open.back()->endNs() <= event->startNs()) open.pop_back();
      if (!open.empty()) totals[open.back()->name()].ms -= ms(event->durationNs());
      Total& total = totals[event->name()];
      ++total.calls, total.ms += ms(event->durationNs());
      open.push_back(event);
    }
  }
  return totals;
}

// What was asked of a GPU before belongs to the time before.
void wait_for(c10::Device device) {
  if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

}  // namespace

void start_trace(c10::Device device) {
  // Without a GPU Kineto says so on standard error, as an error.
  if (device.is_cpu()) setenv("KINETO_LOG_LEVEL", "5", /*replace=*/0);
  std::set<profiler::ActivityType> activities{profiler::ActivityType::CPU};
  if (device.is_cuda()) activities.insert(profiler::ActivityType::CUDA);
  const profiler::ProfilerConfig config(profiler::ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities);
  wait_for(device);
  profiler::enableProfiler(config, activities);
}

Json stop_trace(c10::Device device, const std::filesystem::path& file) {
  wait_for(device);
  const auto result = profiler::disableProfiler();
  result->save(file.string());
  require(std::filesystem::exists(file), "--trace {}: cannot be written", file.string());
  const auto by_name = device.is_cpu() ? self_times(result->events()) : kernel_times(result->events());
  std::vector<std::pair<std::string, Total>> totals(by_name.begin(), by_name.end());
  std::ranges::stable_sort(totals, std::greater<>(), [](const auto& entry) { return entry.second.ms; });
  double all = 0;
  for (const auto& [name, total] : totals) all += total.ms;
  Json rows = Json::array();
  for (const auto& [name, total] : totals)
    rows.push_back({{"name", short_name(name)}, {"calls", total.calls}, {"ms", total.ms}, {"share", total.ms / all}});
  return {{"file", file.string()}, {"by", device.is_cpu() ? "self" : "kernels"}, {"ms", all}, {"rows", rows}};
}

}  // namespace oryx::bench
