#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/launch.h"

namespace oryx {

// The ranks that train one model together, over c10d: Gloo between CPUs, NCCL between GPUs. A group of one does nothing
// and needs no c10d.
//
// The operations must be called by all ranks in the same order. When another rank dies or fails, each process ends with
// status 1 and a line that names it, within half a minute, whatever it is waiting for (RankMonitor).
class ProcessGroup {
 public:
  ProcessGroup();  // of one
  // Waits for the other ranks to start, for 5 minutes at most.
  ProcessGroup(const Launch& launch, at::Device device);
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;
  ~ProcessGroup();

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool first() const { return rank_ == 0; }

  // Tensors lie on the group's device, contiguous. An operation has been done for what follows on the current stream
  // when it returns, or when its Wait was called; the tensors must live until then.
  using Wait = std::function<void()>;
  // The sum over ranks of slice r of [size * n] elements replaces slice r on rank r; the other slices are undefined.
  Wait reduce_scatter(const at::Tensor& whole);
  // Slice r of rank r replaces slice r everywhere.
  Wait all_gather(const at::Tensor& whole);
  void broadcast(const at::Tensor& x);  // from rank 0
  // Sends in_counts[r] elements to rank r, in order, and receives out_counts[r] from it.
  at::Tensor all_to_all(const at::Tensor& in, std::vector<int64_t> in_counts, std::vector<int64_t> out_counts);
  void sum(std::vector<double>& values);  // over ranks, element by element: the same numbers everywhere

  // What rank 0 passes. The others wait for it as long as it takes.
  std::string from_first(const std::string& text = "");
  // To be called before an error ends this process: the others will say it.
  void fail(const std::string& message);
  // The end: waits until every rank has come this far.
  void finish();

 private:
  struct Connection;
  int rank_ = 0, size_ = 1;
  std::unique_ptr<Connection> connection_;  // null: of one
};

}  // namespace oryx
