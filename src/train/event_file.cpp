#include "train/event_file.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include "base/crc32c.h"
#include "base/error.h"

namespace oryx {
namespace {

static_assert(std::endian::native == std::endian::little);

template <typename T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

uint32_t masked(uint32_t crc) {
  return std::rotr(crc, 15) + 0xa282ead8u;
}

// Fields of a protobuf message: (number << 3 | wire type), then the value.
enum Wire : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

std::string key(int number, Wire wire) {
  return varint(static_cast<uint64_t>(number) << 3 | wire);
}
std::string integer_field(int number, int64_t value) {
  return key(number, kVarint) + varint(static_cast<uint64_t>(value));
}
std::string bytes_field(int number, std::string_view bytes) {
  return key(number, kBytes) + varint(bytes.size()) + std::string(bytes);
}

// Event: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
std::string event(int64_t step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return key(1, kFixed64) + bytes_of(std::chrono::duration<double>(now).count()) + integer_field(2, step);
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

}  // namespace

std::string tfrecord(std::string_view payload) {
  const std::string length = bytes_of(uint64_t{payload.size()});
  return length + bytes_of(masked(crc32c(length))) + std::string(payload) + bytes_of(masked(crc32c(payload)));
}

EventFile::EventFile(const std::filesystem::path& directory, int64_t first_step) {
  static std::atomic<int> counter{0};
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  require(!error, "{}: cannot be made: {}", directory.string(), error.message());
  // TensorBoard reads a directory's files in the order of their names.
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  path_ = directory / fmt::format("events.out.tfevents.{:010}.{}.{}.{}",
                                  std::chrono::duration_cast<std::chrono::seconds>(now).count(), host_name(), getpid(),
                                  counter++);
  file_ = std::fopen(path_.c_str(), "wb");
  require(file_ != nullptr, "{}: cannot be written: {}", path_.string(), std::generic_category().message(errno));
  write(event(0) + bytes_field(3, "brain.Event:2"));
  constexpr int64_t kStart = 1;  // SessionLog: status = 1
  write(event(first_step) + bytes_field(7, integer_field(1, kStart)));
}

EventFile::~EventFile() {
  std::fclose(file_);
}

void EventFile::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;  // Summary: value = 1; Summary.Value: tag = 1, simple_value = 2
  for (const auto& [tag, value] : values)
    summary += bytes_field(1, bytes_field(1, tag) + key(2, kFixed32) + bytes_of(static_cast<float>(value)));
  write(event(step) + bytes_field(5, summary));
}

void EventFile::write(std::string_view event) {
  const std::string record = tfrecord(event);
  const bool written = std::fwrite(record.data(), 1, record.size(), file_) == record.size() && std::fflush(file_) == 0;
  require(written, "{}: cannot be written: {}", path_.string(), std::generic_category().message(errno));
}

}  // namespace oryx
