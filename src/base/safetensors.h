#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace oryx {

enum class Dtype : uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };
size_t dtype_size(Dtype dtype);
const char* dtype_name(Dtype dtype);  // safetensors' names: "F32", "BF16", ...

// One tensor of a file: row-major, little-endian. `data` points into the mapped file and lives as long as its reader.
// It may be aligned to no more than a byte: copy it, or look before casting its address.
struct StoredTensor {
  Dtype dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

// The header of a safetensors file, checked against the file's size: offsets within it, no overlaps, no holes,
// sizes that agree with dtype and shape, products that do not overflow. `file` is the whole file.
std::map<std::string, StoredTensor> parse_safetensors(std::span<const std::byte> file, const std::string& source,
                                                      std::map<std::string, std::string>* metadata = nullptr);

// A safetensors file mapped into memory.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path);
  SafetensorsReader(SafetensorsReader&&) noexcept;
  ~SafetensorsReader();
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::span<const std::byte> map_;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes a file (under its own name, so call it inside a StagedDirectory): header padded to 8 bytes, tensors in the
// order given. Python's safetensors opens it.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, StoredTensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace oryx
