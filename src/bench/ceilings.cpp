#include "bench/ceilings.h"

#include <ATen/ops/copy.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <limits>

#include "base/error.h"
#include "base/progress.h"
#include "bench/loops.h"
#include "bench/machine.h"
#include "ops/common/parallel.h"
#include "ops/common/products.h"

namespace oryx::bench {
namespace {

double best_seconds(c10::Device device, int runs, const std::function<void()>& work) {
  time_calls(device, 1, work);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < runs; ++i) best = std::min(best, time_calls(device, 1, work));
  return best;
}

// Floating-point operations a second of all threads together.
double arithmetic_rate(ArithmeticLoop loop, double flops_per_round, bool quick) {
  const int64_t threads = ops::num_threads();
  std::atomic<float> sink{0};
  const auto run = [&](int64_t rounds) {
    return best_seconds(at::kCPU, rounds > 1000 && !quick ? 7 : 2, [&] {
      ops::parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) sink = loop(rounds, 1.0f);
      });
    });
  };
  const double target = quick ? 0.005 : 0.06, once = run(1000);
  const auto rounds = std::max<int64_t>(1001, static_cast<int64_t>(1000 * target / once));
  return static_cast<double>(rounds * threads) * flops_per_round / run(rounds);
}

// Pages of its own, large ones where the system gives them: malloc would keep what it got.
class Pages {
 public:
  explicit Pages(size_t bytes) : bytes_(bytes) {
    data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(data_ != MAP_FAILED, "no memory for the {} that the bandwidth is measured on",
            human_bytes(static_cast<double>(bytes)));
    madvise(data_, bytes, MADV_HUGEPAGE);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { munmap(data_, bytes_); }
  float* floats() const { return static_cast<float*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

double read_rate(ReadLoop loop, int64_t bytes, bool quick) {
  const int64_t threads = ops::num_threads();
  const int64_t part = bytes / 4 / threads / 512 * 512;  // floats a thread reads
  const Pages pages(static_cast<size_t>(part * threads) * 4);
  std::atomic<float> sink{0};
  const auto each = [&](auto&& work) {
    ops::parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) work(pages.floats() + i * part);
    });
  };
  each([&](float* data) { std::fill(data, data + part, 1.0f); });
  const double seconds =
      best_seconds(at::kCPU, quick ? 2 : 5, [&] { each([&](const float* data) { sink = loop(data, part); }); });
  return static_cast<double>(part * threads * 4) / seconds;
}

double matmul_rate(c10::Device device, at::ScalarType type, int64_t n, int runs) {
  const at::Tensor a = at::randn({n, n}, at::device(device)).to(type),
                   b = at::randn({n, n}, at::device(device)).to(type);
  const double seconds = best_seconds(device, runs, [&] { ops::linear(a, b); });
  return 2.0 * static_cast<double>(n * n * n) / seconds;
}

Ceilings cpu_ceilings(bool quick) {
  const Loops loops = best_loops();
  Ceilings c;
  c.fp32_gflops =
      arithmetic_rate(loops.multiply_add, static_cast<double>(kMultiplyAdds * loops.lanes * 2), quick) / 1e9;
  c.fp32_from = fmt::format("multiply-add loop, {}", loops.isa);
  c.bf16_gflops = c.fp32_gflops;
  c.bf16_from = "the fp32 loop: the processor has no vdpbf16ps";
  if (loops.dot_bf16) {
    const double dots = arithmetic_rate(loops.dot_bf16, kDotProducts * 64.0, quick) / 1e9;
    c.bf16_from = dots > c.fp32_gflops ? "dot-product loop, vdpbf16ps"
                                       : fmt::format("the fp32 loop: vdpbf16ps reaches {:.0f} GFLOP/s only", dots);
    c.bf16_gflops = std::max(dots, c.bf16_gflops);
  }
  const int64_t bytes =
      quick ? 32 << 20 : std::min(std::max<int64_t>(1 << 30, 4 * last_level_cache()), physical_memory() / 8);
  c.read_gb_per_s = read_rate(loops.read_streams, bytes, quick) / 1e9;
  c.read_from = fmt::format("reading {}, 8 streams a thread", human_bytes(static_cast<double>(bytes)));
  const int64_t n = quick ? 256 : 2048;
  c.fp32_library_gflops = matmul_rate(at::kCPU, at::kFloat, n, 3) / 1e9;
  c.bf16_library_gflops = matmul_rate(at::kCPU, at::kBFloat16, n, 3) / 1e9;
  if (c.bf16_library_gflops > c.bf16_gflops) c.bf16_from += "; the library has faster units (AMX) to itself";
  return c;
}

Ceilings gpu_ceilings(c10::Device device, bool quick) {
  const int64_t n = quick ? 1024 : 8192, count = quick ? 1 << 24 : int64_t{1} << 30;
  Ceilings c;
  c.fp32_gflops = c.fp32_library_gflops = matmul_rate(device, at::kFloat, n, 5) / 1e9;
  c.bf16_gflops = c.bf16_library_gflops = matmul_rate(device, at::kBFloat16, n, 10) / 1e9;
  c.fp32_from = c.bf16_from = fmt::format("matrix product {0} x {0} x {0}", n);
  const at::Tensor x = at::empty({count}, at::device(device)).fill_(1), y = at::empty_like(x);
  c.read_gb_per_s = 8.0 * static_cast<double>(count) / best_seconds(device, 10, [&] { y.copy_(x); }) / 1e9;
  c.read_from = fmt::format("device copy of {}, read and written", human_bytes(4.0 * static_cast<double>(count)));
  return c;
}

}  // namespace

Ceilings measure_ceilings(c10::Device device, bool quick) {
  return device.is_cpu() ? cpu_ceilings(quick) : gpu_ceilings(device, quick);
}

Json Ceilings::to_json() const {
  return {{"fp32_gflops", fp32_gflops},
          {"bf16_gflops", bf16_gflops},
          {"read_gb_per_s", read_gb_per_s},
          {"fp32_from", fp32_from},
          {"bf16_from", bf16_from},
          {"read_from", read_from},
          {"fp32_library_gflops", fp32_library_gflops},
          {"bf16_library_gflops", bf16_library_gflops}};
}

}  // namespace oryx::bench
