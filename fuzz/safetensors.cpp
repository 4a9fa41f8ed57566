#include "base/safetensors.h"

#include "base/error.h"
#include "check.h"

using namespace oryx;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    std::map<std::string, std::string> metadata;
    const auto tensors = parse_safetensors(std::as_bytes(std::span(data, size)), "input", &metadata);
    unsigned sum = 0;
    for (const auto& [name, tensor] : tensors) {
      size_t bytes = dtype_size(tensor.dtype);
      for (int64_t dimension : tensor.shape) bytes *= static_cast<size_t>(dimension);
      check(bytes == tensor.data.size(), "the bytes agree with dtype and shape");
      for (std::byte byte : tensor.data) sum += static_cast<unsigned>(byte);  // all of it is inside the input
    }
    volatile unsigned keep = sum;
    (void)keep;
  } catch (const InputError& error) {
    check_message(error.what());
  }
  return 0;
}
