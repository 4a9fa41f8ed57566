#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

namespace oryx {

// All errors are InputErrors of one line that name the path and the system's reason ("no such file", "no space left").

std::string read_text_file(const std::filesystem::path& path);

// Buffered writing in which every error, a full disk included, is seen at the latest by close().
class FileWriter {
 public:
  explicit FileWriter(const std::filesystem::path& path);  // creates or truncates
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();  // closes without a word when close() was not reached
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void close();  // flush, fsync, close

 private:
  std::filesystem::path path_;
  std::FILE* file_;
};

// Writes `path` under a temporary name beside it, syncs, renames: readers see the old file or the new one.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

// A directory that appears whole or not at all: fill path(), then commit() syncs and renames it to its final name (an
// existing directory of that name is replaced). Without commit() everything is removed again.
class StagedDirectory {
 public:
  explicit StagedDirectory(const std::filesystem::path& final_path);
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;
  ~StagedDirectory();
  const std::filesystem::path& path() const { return staging_; }
  void commit();

 private:
  std::filesystem::path final_, staging_;
  bool committed_ = false;
};

// Gives a directory whose files are synced another name, where nothing is yet.
void rename_directory(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace oryx
