#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <system_error>

#include "base/error.h"
#include "base/files.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

std::string reason(int code) {
  return std::generic_category().message(code);
}

void sync_path(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(descriptor >= 0, "cannot write {}: {}", path.string(), reason(errno));
  const bool failed = fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS;
  const int error = errno;
  close(descriptor);
  require(!failed, "cannot write {}: {}", path.string(), reason(error));
}

// Files may have been put into the directory by others than FileWriter.
void sync_tree(const fs::path& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_symlink() || !(entry.is_regular_file() || entry.is_directory())) continue;
    sync_path(entry.path());
  }
  sync_path(directory);
}

// What a killed process left while it was writing the same directory: "PREFIX<pid>-<n>" of a process that is gone. An
// "-old" one is the only copy when the process died between the two renames of commit(), and then stays.
void remove_leftovers(const fs::path& parent, const std::string& prefix, bool final_exists) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || (name.ends_with("-old") && !final_exists)) continue;
    pid_t process = 0;
    const char* digits = name.data() + prefix.size();
    const auto parsed = std::from_chars(digits, name.data() + name.size(), process);
    if (parsed.ec != std::errc() || process <= 0 || parsed.ptr == name.data() + name.size() || *parsed.ptr != '-')
      continue;
    if (kill(process, 0) != 0 && errno == ESRCH) fs::remove_all(entry.path(), error);
  }
}

}  // namespace

StagedDirectory::StagedDirectory(const fs::path& final_path) {
  static std::atomic<int> counter{0};
  std::error_code error;
  final_ = fs::absolute(final_path, error).lexically_normal();
  if (!final_.has_filename()) final_ = final_.parent_path();  // "dir/"
  require(!error && final_.has_filename(), "cannot write the directory '{}': not a name for a directory",
          final_path.string());
  const fs::path here = fs::current_path(error);
  require(std::mismatch(final_.begin(), final_.end(), here.begin(), here.end()).first != final_.end(),
          "cannot write {}: it is the working directory or holds it, and would be replaced; name another directory",
          final_.string());
  const fs::file_status status = fs::status(final_, error);
  require(!fs::exists(status) || fs::is_directory(status),
          "cannot write {}: a file of that name exists; name a directory", final_.string());
  // A link to a directory: replace what it points to, not the link.
  if (fs::is_symlink(fs::symlink_status(final_, error)) && fs::exists(status)) final_ = fs::canonical(final_, error);

  const fs::path parent = final_.parent_path();
  fs::create_directories(parent, error);
  require(!error, "cannot create {}: {}", parent.string(), error.message());
  const std::string prefix = fmt::format(".{}.tmp-", final_.filename().string());
  remove_leftovers(parent, prefix, fs::exists(status));
  staging_ = parent / fmt::format("{}{}-{}", prefix, getpid(), counter++);
  fs::create_directory(staging_, error);
  require(!error, "cannot create {}: {}", staging_.string(), error.message());
}

StagedDirectory::~StagedDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(staging_, ignored);
}

void StagedDirectory::commit() {
  require(!committed_, "cannot write {}: it is already in place", final_.string());
  try {
    sync_tree(staging_);
    // One exchange replaces an existing directory with no moment at which there is none.
    if (renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) == 0) {
      committed_ = true;
      sync_path(final_.parent_path());
      std::error_code ignored;
      fs::remove_all(staging_, ignored);  // the old content
      return;
    }
    // None existed, or the file system cannot exchange: then the old one steps aside first.
    fs::path old = staging_;
    old += "-old";
    const bool existed = fs::exists(final_);
    if (existed) fs::rename(final_, old);
    std::error_code error;
    fs::rename(staging_, final_, error);
    if (error && existed) fs::rename(old, final_);
    require(!error, "cannot write {}: {}", final_.string(), error.message());
    committed_ = true;
    sync_path(final_.parent_path());
    if (existed) fs::remove_all(old, error);
  } catch (const fs::filesystem_error& error) {
    input_error("cannot write {}: {}", final_.string(), error.code().message());
  }
}

void rename_directory(const fs::path& from, const fs::path& to) {
  sync_path(from);
  std::error_code error;
  fs::rename(from, to, error);
  require(!error, "cannot write {}: {}", to.string(), error.message());
  sync_path(to.has_parent_path() ? to.parent_path() : fs::path("."));
}

}  // namespace oryx
