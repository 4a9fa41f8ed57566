#include "data/token_shard.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/files.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::vector<int64_t> ids_of(const TokenSpan& tokens) {
  std::vector<int64_t> ids(tokens.count);
  tokens.copy(0, tokens.count, ids.data());
  return ids;
}

class TokenShardTest : public testing::Test {
 protected:
  std::string written(const TokenShardHeader& header, const std::vector<int32_t>& tokens) {
    write_token_shard(path(), header, tokens);
    return read_text_file(path());
  }
  std::filesystem::path path() const { return directory_.path() / "x.tokens"; }
  TemporaryDirectory directory_;
};

TEST_F(TokenShardTest, BytesAreAsDocumented) {
  const std::string bytes =
      written({.vocab_size = 1000, .eos_id = 2, .tokenizer_hash = 0x0102030405060708}, {7, 999, 2});
  std::string expected("ORYXTOKS\1\0\0\0\2\0\0\0\3\0\0\0\0\0\0\0\xe8\3\0\0\0\0\0\0\2\0\0\0\0\0\0\0\10\7\6\5\4\3\2\1",
                       48);
  expected += std::string(16, '\0') + std::string("\7\0\xe7\3\2\0", 6);
  EXPECT_EQ(bytes, expected);
}

TEST_F(TokenShardTest, ReadsWhatWasWritten) {
  for (const int64_t vocab : {300, 65'536, 65'537, 200'000}) {
    const auto last = static_cast<int32_t>(vocab - 1);
    write_token_shard(path(), {.vocab_size = vocab, .eos_id = 5, .tokenizer_hash = 42},
                      std::vector<int32_t>{0, last, 17, 5});
    const TokenShard shard(path());
    EXPECT_EQ(shard.header().vocab_size, vocab);
    EXPECT_EQ(shard.header().eos_id, 5);
    EXPECT_EQ(shard.header().tokenizer_hash, 42u);
    EXPECT_EQ(shard.tokens().width, vocab <= 65'536 ? 2 : 4);
    EXPECT_EQ(ids_of(shard.tokens()), (std::vector<int64_t>{0, last, 17, 5}));
    EXPECT_EQ(shard.tokens()[1], last);
  }
}

TEST_F(TokenShardTest, RefusesToWriteWhatItCannotRead) {
  EXPECT_INPUT_ERROR(written({.vocab_size = 10, .eos_id = 2}, {1, 10}), "token id 10 is outside");
  EXPECT_INPUT_ERROR(written({.vocab_size = 10, .eos_id = 2}, {-1}), "token id -1 is outside");
  EXPECT_INPUT_ERROR(written({.vocab_size = 10, .eos_id = 10}, {1}), "eos id 10");
  EXPECT_INPUT_ERROR(write_token_shard(directory_.path() / "none" / "x", {10, 2, 0}, {}), "none");
}

TEST_F(TokenShardTest, RefusesDamage) {
  const std::string good = written({.vocab_size = 1000, .eos_id = 2, .tokenizer_hash = 9}, {7, 999, 2});
  const auto parse = [](const std::string& bytes) { return parse_token_shard(as_bytes(bytes), "bad.tokens"); };
  const auto with = [&](size_t at, uint32_t value) {
    std::string bytes = good;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return bytes;
  };
  EXPECT_EQ(parse(good).tokens.count, 3);
  for (size_t size = 0; size < 64; ++size) EXPECT_INPUT_ERROR(parse(good.substr(0, size)), "too few");
  for (size_t size = 64; size < good.size(); ++size) EXPECT_INPUT_ERROR(parse(good.substr(0, size)), "cut short");
  EXPECT_INPUT_ERROR(parse(good + "xx"), "too long");
  EXPECT_INPUT_ERROR(parse(good + "x"), "holds 7 bytes");
  EXPECT_INPUT_ERROR(parse(with(0, 1)), "not a token shard");
  EXPECT_INPUT_ERROR(parse(with(8, 2)), "version 2");
  EXPECT_INPUT_ERROR(parse(with(12, 4)), "needs 2 bytes per id, not 4");
  EXPECT_INPUT_ERROR(parse(with(12, 0)), "needs 2 bytes per id");
  EXPECT_INPUT_ERROR(parse(with(20, 0x80000000)), "cut short");  // a count whose size in bytes overflows
  EXPECT_INPUT_ERROR(parse(with(24, 999)), "token id 999 in a vocabulary of 999");
  EXPECT_INPUT_ERROR(parse(with(24, 0)), "vocabulary 0");
  EXPECT_INPUT_ERROR(parse(with(28, 1)), "damaged token shard");
  EXPECT_INPUT_ERROR(parse(with(32, 1000)), "eos id 1000");
  EXPECT_INPUT_ERROR(parse(with(36, 1)), "zero");
  EXPECT_INPUT_ERROR(parse(with(56, 1)), "zero");
  EXPECT_INPUT_ERROR(parse(with(64, 1000)), "token id 1000");
  EXPECT_INPUT_ERROR(parse(written({.vocab_size = 10, .eos_id = 2}, {})), "without tokens");
}

TEST_F(TokenShardTest, RefusesWhatIsNoFile) {
  EXPECT_INPUT_ERROR(TokenShard(directory_.path() / "none.tokens"), "none.tokens");
  EXPECT_INPUT_ERROR(TokenShard(directory_.path()), "cannot read");
  write_file_atomically(path(), "");
  EXPECT_INPUT_ERROR(TokenShard(path()), "0 bytes are too few");
}

}  // namespace
}  // namespace oryx
