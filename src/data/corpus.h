#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/token_shard.h"
#include "data/tokenizer.h"

namespace oryx {

// The documents of a text file as ids, each ending with eos; on all cores. InputError when there is none.
std::vector<std::vector<int32_t>> tokenize_file(const std::filesystem::path& file, const Tokenizer& tokenizer);

// The files of a shard directory (prepare.h): "00000.tokens", "00001.tokens", ...
inline constexpr const char* kShardExtension = ".tokens";
// The shard files of a directory in order of name; InputError when there is none.
std::vector<std::filesystem::path> list_token_shards(const std::filesystem::path& directory);

// The tokens of a set of documents, in memory or mapped, numbered from 0 in the order given. Every document ends with
// eos.
class TokenCorpus {
 public:
  struct Document {
    int64_t begin, length;  // tokens, eos included; length >= 2
  };

  // InputError when a file is unreadable or holds no document.
  static TokenCorpus from_text(const std::vector<std::filesystem::path>& files, const Tokenizer& tokenizer);
  // Directories as prepare_token_shards makes them. InputError when a shard is damaged, was made by another tokenizer,
  // or when there is no document.
  static TokenCorpus from_shards(const std::vector<std::filesystem::path>& directories, const Tokenizer& tokenizer);
  // `documents` end with eos already.
  static TokenCorpus from_documents(const std::vector<std::vector<int32_t>>& documents, int64_t vocab_size,
                                    int32_t eos_id);

  int64_t tokens() const { return size_; }
  int64_t vocab_size() const { return vocab_size_; }
  int32_t eos_id() const { return eos_id_; }
  // Of at least one token besides eos. Reads all tokens.
  std::vector<Document> documents() const;
  // Tokens [begin, begin + n). InputError when a shard turns out to be damaged.
  void copy(int64_t begin, int64_t n, int64_t* out) const;

 private:
  struct Segment {
    int64_t begin;
    TokenSpan tokens;
    std::string name;
    std::shared_ptr<const void> owner;
  };

  TokenCorpus(int64_t vocab_size, int32_t eos_id) : vocab_size_(vocab_size), eos_id_(eos_id) {}
  void add(TokenSpan tokens, std::shared_ptr<const void> owner, std::string name);
  void add(const std::vector<std::vector<int32_t>>& documents, std::string name);

  std::vector<Segment> segments_;
  int64_t vocab_size_, size_ = 0;
  int32_t eos_id_;
};

}  // namespace oryx
