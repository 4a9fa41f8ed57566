#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace oryx {

// Scalars for TensorBoard. The file is a chain of TFRecords, each a protobuf message tensorflow.Event (TensorFlow:
// core/lib/io/record_writer.h, core/util/event.proto, core/framework/summary.proto), of which few fields are needed.
class EventFile {
 public:
  // A new file in `directory`, which is made. It begins with the start of a session, at which TensorBoard forgets the
  // values of `first_step` and later that earlier files of the same directory hold. InputError when it cannot be
  // written.
  EventFile(const std::filesystem::path& directory, int64_t first_step);
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;
  ~EventFile();
  void scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);  // flushed

 private:
  void write(std::string_view event);

  std::filesystem::path path_;
  std::FILE* file_;
};

// length (8 bytes), its masked CRC-32C (4), the payload, its masked CRC-32C (4); little-endian.
std::string tfrecord(std::string_view payload);

}  // namespace oryx
