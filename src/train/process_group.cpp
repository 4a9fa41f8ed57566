#include "train/process_group.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef ORYX_CUDA
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "base/error.h"
#include "train/rank_monitor.h"

namespace oryx {
namespace {

// Waiting may take as long as the work that is waited for: the monitor sees whether anybody is still at it.
constexpr std::chrono::hours kAsLongAsItTakes{24 * 365};

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

c10::intrusive_ptr<c10d::TCPStore> make_store(const Launch& launch) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.port);
  options.isServer = launch.rank == 0 && !launch.agent_store;
  options.waitWorkers = false;
  try {
    return c10::make_intrusive<c10d::TCPStore>(launch.address, options);
  } catch (const std::exception& e) {
    throw std::runtime_error(fmt::format("rank {} cannot {} {}:{} (MASTER_ADDR, MASTER_PORT): {}", launch.rank,
                                         options.isServer ? "listen on" : "reach", launch.address, launch.port,
                                         first_line(e.what())));
  }
}

c10::intrusive_ptr<c10d::Backend> make_backend(const c10::intrusive_ptr<c10d::Store>& store, const Launch& launch,
                                               at::Device device) {
  if (device.is_cpu())
    return c10::make_intrusive<c10d::ProcessGroupGloo>(store, launch.rank, launch.ranks,
                                                       c10d::ProcessGroupGloo::Options::create_default());
#ifdef ORYX_CUDA
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, launch.rank, launch.ranks,
                                                     c10d::ProcessGroupNCCL::Options::create());
#endif
  throw std::logic_error("no backend for this device");
}

}  // namespace

struct ProcessGroup::Connection {
  Connection(const Launch& launch, at::Device on)
      : device(on), store(make_store(launch)), monitor(store->clone(), launch.rank, launch.ranks) {
    // Gloo writes to sockets whose other end may be dead: that is an error to report, not the end of this process.
    std::signal(SIGPIPE, SIG_IGN);
    try {
      backend = make_backend(store, launch, on);
    } catch (const std::exception& e) {
      throw std::runtime_error(
          fmt::format("the {} ranks did not come together: {}", launch.ranks, first_line(e.what())));
    }
    store->setTimeout(kAsLongAsItTakes);
  }

  // The monitor ends this process as soon as it knows which rank is to blame.
  [[noreturn]] static void broken(const std::exception& e) {
    std::this_thread::sleep_for(RankMonitor::kSilence + std::chrono::seconds(5));
    throw std::runtime_error("the connection between the ranks broke: " + first_line(e.what()));
  }

  Wait run(const std::function<c10::intrusive_ptr<c10d::Work>()>& begin) const {
    try {
      return [work = begin()] {
        try {
          work->wait();
        } catch (const std::exception& e) {
          broken(e);
        }
      };
    } catch (const std::exception& e) {
      broken(e);
    }
  }

  at::Device device;
  c10::intrusive_ptr<c10d::Store> store;
  RankMonitor monitor;
  c10::intrusive_ptr<c10d::Backend> backend;
  int64_t texts = 0;
};

ProcessGroup::ProcessGroup() = default;

ProcessGroup::ProcessGroup(const Launch& launch, at::Device device) : rank_(launch.rank), size_(launch.ranks) {
  if (!launch.alone()) connection_ = std::make_unique<Connection>(launch, device);
}

ProcessGroup::~ProcessGroup() = default;

ProcessGroup::Wait ProcessGroup::reduce_scatter(const at::Tensor& whole) {
  if (!connection_) return [] {};
  at::Tensor in = whole, out = whole.chunk(size_)[rank_];
  return connection_->run([&] { return connection_->backend->_reduce_scatter_base(out, in); });
}

ProcessGroup::Wait ProcessGroup::all_gather(const at::Tensor& whole) {
  if (!connection_) return [] {};
  at::Tensor out = whole, in = whole.chunk(size_)[rank_];
  return connection_->run([&] { return connection_->backend->_allgather_base(out, in); });
}

void ProcessGroup::broadcast(const at::Tensor& x) {
  if (!connection_) return;
  std::vector<at::Tensor> tensors{x};
  connection_->run([&] { return connection_->backend->broadcast(tensors); })();
}

at::Tensor ProcessGroup::all_to_all(const at::Tensor& in, std::vector<int64_t> in_counts,
                                    std::vector<int64_t> out_counts) {
  if (!connection_) return in;
  int64_t received = 0;
  for (const int64_t n : out_counts) received += n;
  at::Tensor from = in, to = at::empty({received}, in.options());
  connection_->run([&] { return connection_->backend->alltoall_base(to, from, out_counts, in_counts); })();
  return to;
}

void ProcessGroup::sum(std::vector<double>& values) {
  if (!connection_) return;
  std::vector<at::Tensor> x{at::tensor(values, at::kDouble).to(connection_->device)};
  connection_->run([&] { return connection_->backend->allreduce(x); })();
  const at::Tensor total = x[0].cpu();
  values.assign(total.const_data_ptr<double>(), total.const_data_ptr<double>() + values.size());
}

std::string ProcessGroup::from_first(const std::string& text) {
  if (!connection_) return text;
  const std::string key = fmt::format("oryx/text/{}", connection_->texts++);
  if (first()) {
    connection_->store->set(key, text);
    return text;
  }
  try {
    return connection_->store->get_to_str(key);
  } catch (const std::exception& e) {
    Connection::broken(e);
  }
}

void ProcessGroup::fail(const std::string& message) {
  if (!connection_) return;
  connection_->monitor.fail(first_line(message));
  // Operations that the others never begin would be waited for, here and by what runs at exit.
  connection_->backend.release();
  on_exit(
      [](int status, void*) {
        std::fflush(nullptr);
        ::_exit(status);
      },
      nullptr);
}

void ProcessGroup::finish() {
  if (!connection_) return;
  const auto wait_for_all = [this](const std::string& key, std::chrono::steady_clock::duration at_most) {
    const auto end = std::chrono::steady_clock::now() + at_most;
    connection_->store->add(key, 1);
    while (first() && connection_->store->add(key, 0) < size_ && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  };
  wait_for_all("oryx/done", kAsLongAsItTakes);
  from_first();
  connection_->backend->shutdown();
  connection_->monitor.stop();
  // Rank 0 serves the store until the others need it no longer.
  wait_for_all("oryx/gone", std::chrono::seconds(10));
}

}  // namespace oryx
