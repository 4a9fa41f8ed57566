#include "train/checksums.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "expect_error.h"
#include "temporary_directory.h"
#include "train/run_lock.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

TEST(Checksums, FindEveryKindOfDamage) {
  const TemporaryDirectory dir;
  std::string content(5000, 'x');
  const auto restore = [&] {
    write_file_atomically(dir / "a", content);
    write_file_atomically(dir / "empty", "");
    write_checksums(dir.path());
  };
  const auto damage = [&] { return find_damage(dir.path()).value_or("none"); };
  restore();
  EXPECT_EQ(damage(), "none");
  for (const size_t at : {size_t{0}, size_t{2500}, content.size() - 1}) {
    std::string other = content;
    other[at] ^= 1;
    write_file_atomically(dir / "a", other);
    EXPECT_NE(damage().find("a does not have the checksum"), std::string::npos) << damage();
  }
  fs::resize_file(dir / "a", 4999);
  EXPECT_NE(damage().find("4999 bytes of 5000"), std::string::npos) << damage();
  restore();
  fs::remove(dir / "empty");
  EXPECT_NE(damage().find("empty"), std::string::npos) << damage();
  restore();
  const std::string sums = read_text_file(dir / "checksums.json");
  for (const std::string& bad : {sums.substr(0, sums.size() / 2), std::string(), std::string("[]"),
                                 std::string(R"({"../a": {"bytes": 1, "crc32c": 1}})")}) {
    write_file_atomically(dir / "checksums.json", bad);
    EXPECT_NE(damage().find("checksums.json"), std::string::npos) << bad << ": " << damage();
  }
  fs::remove(dir / "checksums.json");
  EXPECT_NE(damage(), "none");
}

TEST(RunLock, OneProcessAtATime) {
  const TemporaryDirectory dir;
  {
    const RunLock lock(dir.path());
    EXPECT_INPUT_ERROR(RunLock(dir.path()), "in use by another");
  }
  EXPECT_NO_THROW(RunLock(dir.path()));
}

}  // namespace
}  // namespace oryx
