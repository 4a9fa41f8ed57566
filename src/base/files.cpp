#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>

#include "base/error.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

std::string reason(int code) {
  return std::generic_category().message(code);
}

// Pipes and special files cannot be synced, and need not be.
bool sync_failed(int descriptor) {
  return fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS;
}

}  // namespace

std::string read_text_file(const fs::path& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  require(file != nullptr, "cannot read {}: {}", path.string(), reason(errno));
  std::string text;
  struct stat status {};
  if (fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode))
    text.reserve(static_cast<size_t>(status.st_size) + 1);
  char buffer[1 << 16];
  size_t count;
  errno = 0;
  while ((count = std::fread(buffer, 1, sizeof buffer, file)) > 0) text.append(buffer, count);
  const int error = std::ferror(file) ? errno : 0;
  std::fclose(file);
  require(error == 0, "cannot read {}: {}", path.string(), reason(error));
  return text;
}

FileWriter::FileWriter(const fs::path& path) : path_(path), file_(std::fopen(path.c_str(), "wb")) {
  require(file_ != nullptr, "cannot write {}: {}", path_.string(), reason(errno));
}

FileWriter::~FileWriter() {
  if (file_) std::fclose(file_);
}

void FileWriter::write(const void* data, size_t bytes) {
  require(file_ != nullptr, "cannot write {}: it is closed", path_.string());
  if (bytes == 0) return;
  const bool written = std::fwrite(data, 1, bytes, file_) == bytes;  // before errno is read
  require(written, "cannot write {}: {}", path_.string(), reason(errno));
}

void FileWriter::close() {
  if (!file_) return;
  int error = std::fflush(file_) == 0 ? 0 : errno;
  if (error == 0 && sync_failed(fileno(file_))) error = errno;
  if (std::fclose(file_) != 0 && error == 0) error = errno;
  file_ = nullptr;
  require(error == 0, "cannot write {}: {}", path_.string(), reason(error));
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  static std::atomic<int> counter{0};
  fs::path temporary = path;
  temporary.replace_filename(fmt::format(".{}.tmp-{}-{}", path.filename().string(), getpid(), counter++));
  std::error_code ignored;
  try {
    FileWriter writer(temporary);
    writer.write(content);
    writer.close();
  } catch (...) {
    fs::remove(temporary, ignored);
    throw;
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    fs::remove(temporary, ignored);
    input_error("cannot write {}: {}", path.string(), reason(error));
  }
  // The rename itself is on disk once its directory is.
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const int directory = open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory >= 0) {
    const bool failed = sync_failed(directory);
    const int error = errno;
    ::close(directory);
    require(!failed, "cannot write {}: {}", path.string(), reason(error));
  }
}

}  // namespace oryx
