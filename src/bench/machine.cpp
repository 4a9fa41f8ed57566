#include "bench/machine.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <malloc.h>
#include <sys/times.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>

namespace oryx::bench {
namespace {

double wall_clock() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A field of /proc/self/status, in bytes.
std::optional<int64_t> status_bytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1)) * 1024;
  return std::nullopt;
}

// Makes VmHWM count from now on (proc(5), clear_refs).
bool reset_high_water() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

std::optional<int64_t> peak_resident(const std::function<void()>& work) {
  malloc_trim(0);  // what earlier calls freed must not hide what this one takes; works beside M_MMAP_MAX = 0
  if (!reset_high_water()) return work(), std::nullopt;
  const auto before = status_bytes("VmRSS");
  work();
  const auto after = status_bytes("VmHWM");
  if (!before || !after) return std::nullopt;
  return std::max<int64_t>(0, *after - *before);
}

std::optional<int64_t> peak_allocated(c10::Device device, const std::function<void()>& work) {
  auto* allocator = c10::getDeviceAllocator(device.type());
  const auto bytes = [&] {
    return allocator->getDeviceStats(device.index())
        .allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  };
  allocator->resetPeakStats(device.index());
  const int64_t before = bytes().current;
  work();
  return bytes().peak - before;
}

}  // namespace

double time_calls(c10::Device device, int64_t count, const std::function<void()>& work) {
  if (device.is_cpu()) {
    const double begin = wall_clock();
    for (int64_t i = 0; i < count; ++i) work();
    return wall_clock() - begin;
  }
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  c10::Event begin(device.type(), c10::EventFlag::BACKEND_DEFAULT), end(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  begin.record(stream);
  for (int64_t i = 0; i < count; ++i) work();
  end.record(stream);
  end.synchronize();
  return begin.elapsedTime(end) / 1e3;
}

std::optional<int64_t> peak_bytes(c10::Device device, const std::function<void()>& work) {
  return device.is_cpu() ? peak_resident(work) : peak_allocated(device, work);
}

int64_t physical_memory() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

int64_t last_level_cache() {
  return std::max({0L, sysconf(_SC_LEVEL2_CACHE_SIZE), sysconf(_SC_LEVEL3_CACHE_SIZE)});
}

OtherLoad::Times OtherLoad::now() {
  const auto tick = static_cast<double>(sysconf(_SC_CLK_TCK));
  tms own{};
  times(&own);
  // user nice system idle iowait irq softirq steal, in ticks of all cores (proc(5)).
  std::ifstream file("/proc/stat");
  std::string name;
  double field[8] = {}, busy = 0;
  file >> name;
  for (double& value : field) file >> value;
  for (const int i : {0, 1, 2, 5, 6}) busy += field[i];
  return {wall_clock(), file ? busy / tick : -1, static_cast<double>(own.tms_utime + own.tms_stime) / tick};
}

std::optional<double> OtherLoad::cores() const {
  const Times end = now();
  if (begin_.machine < 0 || end.machine < 0 || end.wall <= begin_.wall) return std::nullopt;
  return std::max(0.0, ((end.machine - begin_.machine) - (end.own - begin_.own)) / (end.wall - begin_.wall));
}

}  // namespace oryx::bench
