#include "train/metrics.h"

#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/error.h"
#include "base/files.h"

namespace oryx {

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t last_step) : path_(path) {
  std::string kept;
  if (std::filesystem::exists(path)) {
    std::istringstream lines(read_text_file(path));
    for (std::string line; std::getline(lines, line);) {
      const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (json.is_object() && json.value("step", int64_t{0}) <= last_step) kept += line + "\n";
    }
  }
  write_file_atomically(path, kept);
  file_ = std::fopen(path.c_str(), "a");
  require(file_ != nullptr, "{}: cannot be written: {}", path.string(), std::strerror(errno));
}

MetricsLog::~MetricsLog() {
  std::fclose(file_);
}

void MetricsLog::write(const Json& line) {
  const std::string text = line.dump() + "\n";
  require(std::fwrite(text.data(), 1, text.size(), file_) == text.size() && std::fflush(file_) == 0,
          "{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

}  // namespace oryx
