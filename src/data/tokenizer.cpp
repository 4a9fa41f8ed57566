#include "data/tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "data/sentencepiece_model.h"
#include "data/tokenizer_json.h"
#include "data/tokenizer_model.h"
#include "data/word_cache.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kReplacement = "\uFFFD";

uint64_t fnv1a(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3ull;
  return hash;
}

// A SentencePiece model begins with a line end and the length of its first piece.
bool is_json(std::string_view bytes) {
  const std::string_view begin = trim(bytes.substr(0, 64));
  return begin.starts_with('{') && trim(begin.substr(1)).find_first_of("\"}") == 0;
}

}  // namespace

Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

fs::path Tokenizer::find(const fs::path& directory) {
  std::error_code error;
  for (const char* name : kFileNames)
    if (fs::exists(directory / name, error)) return directory / name;
  return {};
}

Tokenizer Tokenizer::load(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return parse(read_text_file(path), path.string());
  const fs::path file = find(path);
  require(!file.empty(), "{} holds no tokenizer; it should have a {} or a {}", path.string(), kFileNames[0],
          kFileNames[1]);
  return load(file);
}

Tokenizer Tokenizer::parse(std::string bytes, const std::string& source) {
  return Tokenizer(std::move(bytes), source);
}

Tokenizer::Tokenizer(std::string bytes, const std::string& source) : bytes_(std::move(bytes)), hash_(fnv1a(bytes_)) {
  if (is_json(bytes_)) {
    model_ = parse_tokenizer_json(bytes_, source);
  } else {
    model_ = std::make_unique<SentencePieceModel>(bytes_, source);
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  WordCache words;
  std::vector<int32_t> ids;
  model_->encode(text, special, words, ids);
  return ids;
}

std::string Tokenizer::decode(int32_t id) const {
  require(id >= 0 && id < vocab_size(), "token id {} is outside the tokenizer's vocabulary of {}", id, vocab_size());
  return model_->surfaces()[id];
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) text += decode(id);
  return text;
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(model_->surfaces().size());
}
int32_t Tokenizer::bos_id() const {
  return model_->bos_id();
}
int32_t Tokenizer::eos_id() const {
  return model_->eos_id();
}
const char* Tokenizer::file_name() const {
  return kFileNames[is_json(bytes_) ? 1 : 0];
}

Encoder::Encoder(const Tokenizer& tokenizer) : model_(tokenizer.model_.get()), words_(std::make_unique<WordCache>()) {}
Encoder::~Encoder() = default;

void Encoder::encode(std::string_view text, std::vector<int32_t>& ids, SpecialTokens special) {
  model_->encode(text, special, *words_, ids);
}

std::string StreamDecoder::push(int32_t id) {
  held_ += tokenizer_.decode(id);
  return take(false);
}

std::string StreamDecoder::finish() {
  return take(true);
}

std::string StreamDecoder::take(bool last) {
  std::string out;
  size_t at = 0;
  while (at < held_.size()) {
    const std::string_view rest = std::string_view(held_).substr(at);
    const size_t length = utf8_sequence_length(rest);
    if (length > 0) {
      out += rest.substr(0, length);
      at += length;
      continue;
    }
    // The longest beginning of a character here; the lowest or the highest continuation completes any such beginning.
    size_t begun = 0;
    for (size_t have = 1; have < std::min<size_t>(rest.size() + 1, 4); ++have) {
      for (const char fill : {'\x80', '\xbf'}) {
        const std::string whole = std::string(rest.substr(0, have)) + std::string(3, fill);
        if (utf8_sequence_length(whole) > have) begun = have;
      }
    }
    if (begun == rest.size() && !last) break;
    out += kReplacement;
    at += std::max<size_t>(begun, 1);
  }
  held_.erase(0, at);
  return out;
}

}  // namespace oryx
