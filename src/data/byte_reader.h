#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/sha256.h"

namespace oryx {

// A file's bytes in order, in constant memory. A file that begins with the magic number of Zstandard or gzip, whatever
// its name, is unpacked on the way; several frames or members one after another are one text.
class ByteReader {
 public:
  enum class Unpack { by_magic, no };
  explicit ByteReader(const std::filesystem::path& path, Unpack unpack = Unpack::by_magic);
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;
  ~ByteReader();

  // Between 1 and `bytes` bytes, or 0 at the end. InputError when the file cannot be read, or its packing is damaged or
  // cut short; what came before is good.
  size_t read(char* out, size_t bytes);
  int64_t file_bytes() const { return file_bytes_; }  // of the file as it lies on the disk, read so far
  // Of the file as it lies on the disk, to its end whatever has been read; ends the reading.
  std::string sha256();

 private:
  class Decoder;
  class ZstdDecoder;
  class GzipDecoder;
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  bool fill();  // more of the file into input_; false at its end

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::unique_ptr<Decoder> decoder_;  // null: as it lies
  std::vector<char> input_;
  size_t begin_ = 0, end_ = 0;  // of what is left in input_
  int64_t file_bytes_ = 0;
  Sha256 hash_;
};

}  // namespace oryx
