#include "train/checksums.h"

#include <cerrno>
#include <cstdio>
#include <map>
#include <memory>
#include <system_error>
#include <vector>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "checksums.json";

struct Sum {
  int64_t bytes = 0;
  uint32_t crc = 0;
};

Sum sum_of(const fs::path& path) {
  const auto failed = [&] { input_error("cannot read {}: {}", path.string(), std::generic_category().message(errno)); };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) failed();
  Sum sum;
  std::vector<char> buffer(1 << 20);
  for (size_t count = 0; (count = std::fread(buffer.data(), 1, buffer.size(), file.get())) > 0;) {
    sum.crc = crc32c(buffer.data(), count, sum.crc);
    sum.bytes += static_cast<int64_t>(count);
  }
  if (std::ferror(file.get()) != 0) failed();
  return sum;
}

}  // namespace

void write_checksums(const fs::path& directory) {
  std::map<std::string, Sum> sums;  // by name, so that equal directories have equal files
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().filename() != kName) sums.emplace(entry.path().filename().string(), sum_of(entry.path()));
  Json json = Json::object();
  for (const auto& [name, sum] : sums) json[name] = {{"bytes", sum.bytes}, {"crc32c", sum.crc}};
  write_file_atomically(directory / kName, json.dump(2) + "\n");
}

std::optional<std::string> find_damage(const fs::path& directory) {
  try {
    const Json json = load_json(directory / kName);
    const std::string where = (directory / kName).string();
    Fields files(json, where);
    for (const auto& [name, value] : json.items()) {
      require(fs::path(name).filename() == name, "{}: '{}' is not the name of a file", where, name);
      Fields expected(value, fmt::format("{}: '{}'", where, name));
      const int64_t bytes = expected.integer("bytes"), crc = expected.integer("crc32c");
      const Sum sum = sum_of(directory / name);
      if (sum.bytes != bytes) return fmt::format("{} has {} bytes of {}", name, sum.bytes, bytes);
      if (sum.crc != crc) return fmt::format("{} does not have the checksum that it was written with", name);
    }
  } catch (const InputError& error) {
    return error.what();
  }
  return std::nullopt;
}

}  // namespace oryx
