#include "data/text_file.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include "base/files.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

std::string pack(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

std::vector<std::string> documents(std::string_view text) {
  const auto views = split_documents(text);
  return {views.begin(), views.end()};
}

TEST(ReadUtf8File, UnpacksZstandard) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "text.txt";
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "line " + std::to_string(i) + " \u00e9\n";
  for (const std::string& stored : {text, pack(text), pack(text.substr(0, 1234)) + pack(text.substr(1234))}) {
    write_file_atomically(path, stored);
    EXPECT_TRUE(read_utf8_file(path) == text);
  }
  write_file_atomically(path, pack(""));
  EXPECT_EQ(read_utf8_file(path), "");
}

TEST(ReadUtf8File, RefusesDamage) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "text.txt.zst";
  EXPECT_INPUT_ERROR(read_utf8_file(path), "text.txt.zst");
  const std::string packed = pack(std::string(10'000, 'x') + "yz");
  for (size_t size = 4; size < packed.size(); ++size) {
    write_file_atomically(path, packed.substr(0, size));
    EXPECT_INPUT_ERROR(read_utf8_file(path), "whole Zstandard file");
  }
  write_file_atomically(path, packed + "trailing");
  EXPECT_INPUT_ERROR(read_utf8_file(path), "whole Zstandard file");
  write_file_atomically(path, "abc\xc3(");
  EXPECT_INPUT_ERROR(read_utf8_file(path), "invalid byte 0xc3 at offset 3");
}

TEST(SplitDocuments, AtSeparatorLinesOnly) {
  using Documents = std::vector<std::string>;
  EXPECT_EQ(documents(""), Documents{});
  EXPECT_EQ(documents("\n"), Documents{});
  EXPECT_EQ(documents("one"), Documents{"one"});
  EXPECT_EQ(documents("one\n"), Documents{"one"});
  EXPECT_EQ(documents("one\n<|endoftext|>\ntwo\n\n"), (Documents{"one", "two\n"}));
  EXPECT_EQ(documents("<|endoftext|>\none\n<|endoftext|>\n<|endoftext|>\n two <|endoftext|>\n<|endoftext|>"),
            (Documents{"one", " two <|endoftext|>"}));
  EXPECT_EQ(documents("one\r\n<|endoftext|>\r\ntwo\r\n"), (Documents{"one", "two"}));
  EXPECT_EQ(documents(" <|endoftext|>\nx"), Documents{" <|endoftext|>\nx"});
}

// The text that the project ships, as data/README.md describes it.
TEST(Books, AreWhole) {
  const std::string train = read_utf8_file(ORYX_SOURCE_DIR "/data/books/train.txt.zst");
  const std::string valid = read_utf8_file(ORYX_SOURCE_DIR "/data/books/valid.txt.zst");
  EXPECT_EQ(train.size(), 3'429'923u);
  EXPECT_EQ(valid.size(), 392'148u);
  EXPECT_EQ(split_documents(train).size(), 12u);
  ASSERT_EQ(split_documents(valid).size(), 1u);
  EXPECT_TRUE(split_documents(train)[2].starts_with("Pride and Prejudice\nby Jane Austen\n"));
  EXPECT_TRUE(split_documents(valid)[0].starts_with("Silas Marner\nby George Eliot\n"));
}

}  // namespace
}  // namespace oryx
