#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace oryx {

struct TokenizerOptions {
  std::string model_type = "bpe";         // or "unigram"
  double character_coverage = 0.9995;     // rarer characters are spelled in bytes
  int64_t max_bytes = int64_t{64} << 20;  // of a larger corpus, an even sample of its lines is used
};

// What a special token's text ("<|endoftext|>") within a text becomes: spelled out like any other text, or its id.
enum class SpecialTokens : uint8_t { as_text, as_ids };

class TokenizerModel;
class WordCache;

// Text to token ids and back. Two kinds of file:
// - tokenizer.model, a SentencePiece model (Kudo, Richardson 2018, arXiv 1808.06226) that changes nothing: no
//   normalisation, no prefix, all whitespace kept, and every byte that no piece covers spelled as a byte piece;
// - tokenizer.json of the byte-level BPE kind (GPT-2, Llama 3, Qwen), with the ids that Hugging Face's `tokenizers`
//   gives without its post-processor (which would put a bos token in front).
// decode(encode(s)) == s for every string of bytes, valid UTF-8 or not, unless a tokenizer.json asks for Unicode
// normalisation (then it is the normalised s), or has no token for a byte that never occurs in UTF-8 (U+FFFD). Const
// members may be called from several threads.
class Tokenizer {
 public:
  static constexpr const char* kFileNames[] = {"tokenizer.model", "tokenizer.json"};

  // A tokenizer's file, or a directory (a model's, or one of token shards) that holds one under its usual name.
  // InputError when it is missing, damaged or cut short, or when the model is not of the kinds above.
  static Tokenizer load(const std::filesystem::path& path);
  // The tokenizer's file in a directory; empty when there is none.
  static std::filesystem::path find(const std::filesystem::path& directory);
  // From the bytes of such a file; `source` is the name in messages.
  static Tokenizer parse(std::string bytes, const std::string& source);

  // Learns a SentencePiece model from text files (UTF-8, perhaps packed, documents as in text_file.h) and writes it
  // whole or not at all. Ids: 0 unknown (never produced), 1 bos "<s>", 2 eos "<|endoftext|>", then "\n", "\n\n", 256
  // bytes, learned pieces. The same files, in the same order, give the same bytes on any number of cores. InputError
  // when a file is unreadable or empty, or the text cannot fill the vocabulary or needs a larger one.
  static void train(const std::vector<std::filesystem::path>& files, int64_t vocab_size,
                    const std::filesystem::path& output, const TokenizerOptions& options = {});

  std::vector<int32_t> encode(std::string_view text, SpecialTokens special = SpecialTokens::as_text) const;
  // Special tokens decode to nothing. InputError for an id outside [0, vocab_size).
  std::string decode(const std::vector<int32_t>& ids) const;
  std::string decode(int32_t id) const;  // may be a part of a character: see StreamDecoder

  int64_t vocab_size() const;
  int32_t bos_id() const;
  int32_t eos_id() const;                  // ends every document
  uint64_t hash() const { return hash_; }  // FNV-1a of the file's bytes: names the tokenizer in token shards
  const std::string& bytes() const { return bytes_; }  // the file, to be copied beside a model's weights
  const char* file_name() const;                       // its usual name: one of kFileNames

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

 private:
  friend class Encoder;
  Tokenizer(std::string bytes, const std::string& source);

  std::string bytes_;
  uint64_t hash_;
  std::unique_ptr<const TokenizerModel> model_;
};

// Encodes one text after another, faster than Tokenizer::encode because it remembers words it has met. For one thread;
// the tokenizer must outlive it.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer);
  ~Encoder();
  // Appends the ids of `text`.
  void encode(std::string_view text, std::vector<int32_t>& ids, SpecialTokens special = SpecialTokens::as_text);

 private:
  const TokenizerModel* model_;
  std::unique_ptr<WordCache> words_;
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
