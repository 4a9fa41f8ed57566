#include "ops/common/cuda_device.h"

#ifdef ORYX_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

namespace oryx::ops::cuda {

CUstream_st* current_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}

DeviceMemory::DeviceMemory(size_t bytes) : data_(c10::cuda::CUDACachingAllocator::raw_alloc(bytes)) {}
DeviceMemory::~DeviceMemory() {
  c10::cuda::CUDACachingAllocator::raw_delete(data_);
}

void check_launch(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  TORCH_CHECK(status == cudaSuccess, kernel, ": ", cudaGetErrorString(status));
}

}  // namespace oryx::ops::cuda
#endif
