#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace oryx {

struct TokenizerOptions {
  std::string model_type = "bpe";         // or "unigram"
  double character_coverage = 0.9995;     // rarer characters are spelled in bytes
  int64_t max_bytes = int64_t{64} << 20;  // of a larger corpus, an even sample of its lines is used
};

// Text to token ids and back through a SentencePiece model (Kudo, Richardson 2018, arXiv 1808.06226) that changes
// nothing: no normalisation, no prefix, all whitespace kept, and every byte that no piece covers spelled as a byte
// piece. decode(encode(s)) == s for every string of bytes, valid UTF-8 or not. Text never turns into a special token: a
// "<|endoftext|>" within a string is spelled out. Const members may be called from several threads.
class Tokenizer {
 public:
  // InputError when the file is missing, damaged or cut short, or when the model is not of the kind above.
  static Tokenizer load(const std::filesystem::path& path);
  // From the bytes of such a file; `source` is the name in messages.
  static Tokenizer parse(std::string bytes, const std::string& source);

  // Learns a model from text files (UTF-8, perhaps .zst, documents as in text_file.h) and writes it whole or not at
  // all. Ids: 0 unknown (never produced), 1 bos "<s>", 2 eos "<|endoftext|>", then "\n", "\n\n", 256 bytes, learned
  // pieces. The same files, in the same order, give the same bytes on any number of cores. InputError when a file is
  // unreadable or empty, or the text cannot fill the vocabulary or needs a larger one.
  static void train(const std::vector<std::filesystem::path>& files, int64_t vocab_size,
                    const std::filesystem::path& output, const TokenizerOptions& options = {});

  std::vector<int32_t> encode(std::string_view text) const;
  // Special tokens decode to nothing. InputError for an id outside [0, vocab_size).
  std::string decode(const std::vector<int32_t>& ids) const;
  std::string decode(int32_t id) const;  // may be a part of a character: see StreamDecoder

  int64_t vocab_size() const;
  int32_t bos_id() const;
  int32_t eos_id() const;                  // ends every document
  uint64_t hash() const { return hash_; }  // FNV-1a of the model file's bytes: names the tokenizer in token shards
  const std::string& bytes() const { return bytes_; }  // the model file, to be copied beside a model's weights

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

 private:
  Tokenizer(std::string bytes, const std::string& source);
  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const;

  std::string bytes_;
  uint64_t hash_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_;
  std::vector<std::string> surfaces_;  // of every id
  std::vector<int32_t> byte_ids_;      // of the 256 byte pieces
  bool word_by_word_ = true;           // no piece reaches past the end of a word or a line
};

// Text as its tokens arrive: bytes of an unfinished character are held back until it is whole. What comes out is always
// valid UTF-8 (U+FFFD stands for bytes that can no longer become a character); put together it equals decode() whenever
// that is valid UTF-8.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);
  std::string finish();  // what is still held back, as U+FFFD

 private:
  std::string take(bool last);

  const Tokenizer& tokenizer_;
  std::string held_;
};

}  // namespace oryx
