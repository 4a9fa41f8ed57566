#pragma once

#include <cstddef>

struct CUstream_st;

namespace oryx::ops::cuda {

// What kernels (cuda.cu) need of LibTorch, whose headers nvcc is slow to read: the current stream of the current
// device, and memory of the caching allocator, whose use must be queued on that stream.
CUstream_st* current_stream();

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes);
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory();
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
};

// Throws c10::Error, naming `kernel`, if its launch failed.
void check_launch(const char* kernel);

}  // namespace oryx::ops::cuda
