#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace oryx {

// Token ids as they lie in memory or in a mapped file: little-endian, 2 or 4 bytes each.
struct TokenSpan {
  const std::byte* data = nullptr;
  int width = 2;
  int64_t count = 0;

  int64_t operator[](int64_t index) const;
  void copy(int64_t begin, int64_t n, int64_t* out) const;  // tokens [begin, begin + n)
};
// Bytes of one id: 2 up to 65,536 tokens, else 4.
int token_width(int64_t vocab_size);
// `tokens` as a TokenSpan holds them; InputError for one outside [0, vocab_size).
std::vector<std::byte> pack_tokens(std::span<const int32_t> tokens, int64_t vocab_size);

// A token shard file, all little-endian:
//   0 magic "ORYXTOKS"   8 uint32 version 1    12 uint32 bytes per id (2 or 4)   16 uint64 tokens
//  24 uint64 vocabulary 32 uint32 eos id       36 uint32 zero                    40 uint64 tokenizer hash
//  48 16 zero bytes     64 the ids
// Every document ends with the eos id; no document goes on in another shard.
struct TokenShardHeader {
  int64_t vocab_size = 0;
  int32_t eos_id = 0;
  uint64_t tokenizer_hash = 0;
};

// The content of a shard file; `file` is the whole of it, and `tokens` points into it. InputError naming `source` when
// the magic, version, or sizes are wrong, or the file is cut short or too long; with ShardCheck::ids also for an id
// outside the vocabulary, which takes reading all of it.
enum class ShardCheck : uint8_t { sizes, ids };
struct TokenShardView {
  TokenShardHeader header;
  TokenSpan tokens;
};
TokenShardView parse_token_shard(std::span<const std::byte> file, const std::string& source,
                                 ShardCheck check = ShardCheck::ids);

// A shard file mapped into memory.
class TokenShard {
 public:
  explicit TokenShard(const std::filesystem::path& path, ShardCheck check = ShardCheck::ids);
  TokenShard(const TokenShard&) = delete;
  TokenShard& operator=(const TokenShard&) = delete;
  ~TokenShard();
  const TokenShardHeader& header() const { return view_.header; }
  const TokenSpan& tokens() const { return view_.tokens; }

 private:
  std::span<const std::byte> map_;
  TokenShardView view_;
};

// Writes one shard under its own name (so call it inside a StagedDirectory). InputError for an id outside the
// vocabulary.
void write_token_shard(const std::filesystem::path& path, const TokenShardHeader& header,
                       std::span<const int32_t> tokens);

}  // namespace oryx
