#include <sentencepiece_trainer.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "base/text.h"
#include "data/text_file.h"
#include "data/tokenizer.h"

namespace oryx {
namespace {

// SentencePiece counts within lines; a longer one is cut, which costs the learner one word.
constexpr size_t kMaxLine = 8192;
constexpr uint64_t kSamplePurpose = 0x746f6b656e697a65;

class Lines : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(std::vector<std::string> lines) : lines_(std::move(lines)) {}
  bool done() const override { return next_ >= lines_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return lines_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> lines_;
  size_t next_ = 0;
};

void add_lines(std::string_view document, std::vector<std::string>& lines) {
  for (size_t begin = 0; begin < document.size();) {
    size_t end = std::min(document.find('\n', begin), document.size());
    const size_t next = end + 1;
    while (begin < end) {
      size_t cut = std::min(end, begin + kMaxLine);
      while (cut < end && (static_cast<unsigned char>(document[cut]) & 0xc0) == 0x80) --cut;
      lines.emplace_back(document.substr(begin, cut - begin));
      begin = cut;
    }
    begin = next;
  }
}

void sample(std::vector<std::string>& lines, int64_t max_bytes) {
  double total = 0;
  for (const std::string& line : lines) total += static_cast<double>(line.size());
  if (total <= static_cast<double>(max_bytes)) return;
  const double keep = static_cast<double>(max_bytes) / total;
  Random random{kSamplePurpose, lines.size()};
  std::erase_if(lines, [&](const std::string&) { return random.uniform() >= keep; });
}

}  // namespace

void Tokenizer::train(const std::vector<std::filesystem::path>& files, int64_t vocab_size,
                      const std::filesystem::path& output, const TokenizerOptions& options) {
  constexpr int64_t kMinVocab = 512, kMaxVocab = 1 << 20;
  require(!files.empty(), "no text to train a tokenizer on: name at least one file");
  require(vocab_size >= kMinVocab && vocab_size <= kMaxVocab,
          "a tokenizer's vocabulary must be {} to {} tokens, not {}", kMinVocab, kMaxVocab, vocab_size);
  require(options.model_type == "bpe" || options.model_type == "unigram",
          "a tokenizer's model_type must be bpe or unigram, not '{}'", excerpt(options.model_type));
  require(options.character_coverage >= 0.98 && options.character_coverage <= 1,
          "a tokenizer's character_coverage must be 0.98 to 1, not {}", options.character_coverage);
  require(options.max_bytes > 0, "a tokenizer's max_bytes must be positive, not {}", options.max_bytes);

  std::vector<std::string> lines;
  for (const auto& file : files) {
    const std::string text = read_utf8_file(file);
    const auto documents = split_documents(text);
    require(!documents.empty(), "{}: no text in it", file.string());
    for (const std::string_view document : documents) add_lines(document, lines);
  }
  sample(lines, options.max_bytes);
  require(!lines.empty(), "no text to train a tokenizer on: the files hold only line ends");

  const std::unordered_map<std::string, std::string> arguments{
      {"model_type", options.model_type},
      {"vocab_size", std::to_string(vocab_size)},
      {"character_coverage", fmt::format("{}", options.character_coverage)},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", "true"},
      {"user_defined_symbols", "\n,\n\n"},  // lines are given without their ends, so these would not be learned
      {"unk_id", "0"},
      {"bos_id", "1"},
      {"eos_id", "2"},
      {"pad_id", "-1"},
      {"eos_piece", std::string(kDocumentSeparator)},
      {"max_sentence_length", std::to_string(kMaxLine)},
      {"num_threads", "4"},  // fixed: the sums of unigram training depend on how they are split
      {"minloglevel", "2"},
  };
  Lines iterator(std::move(lines));
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &iterator, &model);
  require(status.ok(), "cannot train a tokenizer of {} tokens on this text: {}", vocab_size,
          excerpt(status.message(), 300));
  parse(model, "the trained tokenizer");
  write_file_atomically(output, model);
}

}  // namespace oryx
