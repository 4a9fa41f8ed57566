#include "train/event_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>

#include "base/crc32c.h"
#include "base/files.h"
#include "temporary_directory.h"
#include "train/metrics.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

// The records of a file, their framing and checksums checked.
std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> out;
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    std::memcpy(&value, file.data() + at, sizeof value);
    return value;
  };
  // The reader's side of the mask: subtract, rotate back.
  const auto unmasked = [](uint32_t crc) { return std::rotl(crc - 0xa282ead8u, 15); };
  for (size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    if (at + 12 > file.size()) break;
    std::memcpy(&length, file.data() + at, sizeof length);
    EXPECT_EQ(unmasked(word(at + 8)), crc32c(file.data() + at, 8));
    EXPECT_LE(at + 16 + length, file.size());
    if (at + 16 + length > file.size()) break;
    out.push_back(file.substr(at + 12, length));
    EXPECT_EQ(unmasked(word(at + 12 + length)), crc32c(out.back()));
    at += 16 + length;
  }
  return out;
}

// A protobuf message's fields by number: varints and fixed numbers as integers, the rest as bytes.
struct Message {
  std::multimap<int, uint64_t> numbers;
  std::multimap<int, std::string> bytes;

  explicit Message(const std::string& text) {
    size_t at = 0;
    const auto varint = [&] {
      uint64_t value = 0;
      for (int shift = 0;; shift += 7) {
        const auto byte = static_cast<unsigned char>(text.at(at++));
        value |= uint64_t{byte & 0x7fu} << shift;
        if (byte < 0x80) return value;
      }
    };
    while (at < text.size()) {
      const uint64_t key = varint();
      const int number = static_cast<int>(key >> 3);
      uint64_t value = 0;
      switch (key & 7) {
        case 0:
          numbers.emplace(number, varint());
          break;
        case 1:
        case 5: {
          const size_t size = (key & 7) == 1 ? 8 : 4;
          std::memcpy(&value, text.substr(at, size).data(), size);
          numbers.emplace(number, value);
          at += size;
          break;
        }
        case 2: {
          const uint64_t size = varint();
          bytes.emplace(number, text.substr(at, size));
          at += size;
          break;
        }
        default:
          ADD_FAILURE() << "wire type " << (key & 7);
          return;
      }
    }
  }
  uint64_t number(int field) const { return numbers.count(field) != 0 ? numbers.find(field)->second : UINT64_MAX; }
};

std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(directory)) out.push_back(entry.path());
  return out;
}

TEST(EventFile, FramesOneRecord) {
  // Length 3, then the masked sums; computed with the crc32c package of PyPI.
  const std::string record = tfrecord("abc");
  ASSERT_EQ(record.size(), 19u);
  EXPECT_EQ(record.substr(0, 8), std::string("\3\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(record.substr(12, 3), "abc");
  EXPECT_EQ(records(record), std::vector<std::string>{"abc"});
  // 0x364b3fb7 is the CRC-32C of "abc".
  uint32_t masked = 0;
  std::memcpy(&masked, record.data() + 15, 4);
  EXPECT_EQ(masked, ((0x364b3fb7u >> 15) | (0x364b3fb7u << 17)) + 0xa282ead8u);
}

TEST(EventFile, HoldsTheScalars) {
  const TemporaryDirectory dir;
  {
    EventFile file(dir.path(), 301);
    file.scalars(300, {{"train/loss", 2.5}, {"val_loss/tail", -1e-3}});
    file.scalars(int64_t{1} << 40, {{"train/loss", 2}});
  }
  ASSERT_EQ(files_in(dir.path()).size(), 1u);
  const auto path = files_in(dir.path())[0];
  EXPECT_TRUE(path.filename().string().starts_with("events.out.tfevents."));
  const auto events = records(read_text_file(path));
  ASSERT_EQ(events.size(), 4u);
  const Message version(events[0]), start(events[1]), first(events[2]), second(events[3]);
  EXPECT_EQ(version.bytes.find(3)->second, "brain.Event:2");
  EXPECT_GT(std::bit_cast<double>(version.number(1)), 1.7e9);  // seconds since 1970
  EXPECT_EQ(start.number(2), 301u);
  EXPECT_EQ(Message(start.bytes.find(7)->second).number(1), 1u);
  EXPECT_EQ(first.number(2), 300u);
  EXPECT_EQ(second.number(2), uint64_t{1} << 40);
  std::map<std::string, float> values;
  const Message summary(first.bytes.find(5)->second);
  for (const auto& [field, bytes] : summary.bytes) {
    EXPECT_EQ(field, 1);
    const Message value(bytes);
    values[value.bytes.find(1)->second] = std::bit_cast<float>(static_cast<uint32_t>(value.number(2)));
  }
  EXPECT_EQ(values, (std::map<std::string, float>{{"train/loss", 2.5f}, {"val_loss/tail", -1e-3f}}));
}

TEST(MetricsLog, WritesBothFilesAndCutsWhatIsWrittenAgain) {
  const TemporaryDirectory dir;
  for (const int64_t from : {0, 2}) {
    MetricsLog log(dir.path(), from);
    for (int64_t step = from + 1; step <= 4; ++step) log.write({{"step", step}, {"loss", 1.5}});
    log.write({{"step", 4}, {"val_loss", {{"tail", 3}, {"mixed", nullptr}}}});
  }
  std::istringstream lines(read_text_file(dir / "metrics.jsonl"));
  std::vector<int64_t> steps;
  for (std::string line; std::getline(lines, line);) steps.push_back(Json::parse(line)["step"]);
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 4}));
  const auto files = files_in(dir / "tensorboard");
  ASSERT_EQ(files.size(), 2u);
  std::multiset<size_t> counts;
  for (const auto& file : files) counts.insert(records(read_text_file(file)).size());
  EXPECT_EQ(counts, (std::multiset<size_t>{5, 7}));
  const MetricsLog nothing_more(dir.path(), 4);
  EXPECT_EQ(files_in(dir / "tensorboard").size(), 2u);
}

}  // namespace
}  // namespace oryx
