#include "data/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

namespace oryx {
namespace {

// SentencePiece writes a space as U+2581 within pieces, so that a U+2581 of the text must not reach it.
constexpr std::string_view kSpaceMark = "\u2581";
constexpr std::string_view kReplacement = "\uFFFD";

uint64_t fnv1a(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3ull;
  return hash;
}

std::string surface_of(const sentencepiece::SentencePieceProcessor& model, int id) {
  const std::string& piece = model.IdToPiece(id);
  if (model.IsControl(id)) return "";
  if (model.IsUnknown(id)) return std::string(kReplacement);
  if (model.IsByte(id)) {  // "<0x0A>"
    return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
  }
  std::string surface;
  for (size_t at = 0; at < piece.size();) {
    const size_t mark = std::min(piece.find(kSpaceMark, at), piece.size());
    surface.append(piece, at, mark - at);
    if (mark < piece.size()) surface += ' ';
    at = mark + kSpaceMark.size();
  }
  return surface;
}

// Words begin with the spaces before them; line ends stand by themselves.
bool word_boundary(char left, char right) {
  return (left != ' ' && right == ' ') || (left == '\n') != (right == '\n');
}

}  // namespace

Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  return parse(read_text_file(path), path.string());
}

Tokenizer Tokenizer::parse(std::string bytes, const std::string& source) {
  return Tokenizer(std::move(bytes), source);
}

Tokenizer::Tokenizer(std::string bytes, const std::string& source)
    : bytes_(std::move(bytes)),
      hash_(fnv1a(bytes_)),
      model_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  require(!bytes_.empty(), "{}: the file is empty; it should be a SentencePiece model", source);
  const auto status = model_->LoadFromSerializedProto(bytes_);
  require(status.ok(), "{}: not a SentencePiece model, or a damaged one ({})", source, excerpt(status.message()));
  const int size = model_->GetPieceSize();
  const auto special = [&](int id) { return id >= 0 && id < size && model_->IsControl(id); };
  require(special(model_->eos_id()) && special(model_->bos_id()),
          "{}: the model has no bos and eos tokens; train one with oryx", source);
  for (int byte = 0; byte < 256; ++byte) {
    const int id = model_->PieceToId(fmt::format("<0x{:02X}>", byte));
    require(id >= 0 && id < size && model_->IsByte(id),
            "{}: the model has no byte pieces and would lose characters; train one with oryx", source);
    byte_ids_.push_back(id);
  }
  surfaces_.reserve(size);
  for (int id = 0; id < size; ++id) {
    const std::string& surface = surfaces_.emplace_back(surface_of(*model_, id));
    for (size_t i = 1; i < surface.size(); ++i) word_by_word_ &= !word_boundary(surface[i - 1], surface[i]);
  }
  // Normalisation, dummy prefixes and dropped spaces show in these, and so does a file cut short before its options.
  for (const char* probe :
       {"a", " a  b ", "\t\n\n x\r\n", "\uFF21\u00BD e\u0301 \u00A0\u3000", "<s></s>", "\U0001F600"}) {
    require(decode(encode(probe)) == probe,
            "{}: the model changes text (normalisation or whitespace), or is damaged; train one with oryx", source);
  }
}

// No piece crosses the end of a word, so that each word can be encoded by itself: many times faster on long texts,
// where most words have been met before. The pieces are those SentencePiece finds for the whole (BPE), or better by the
// rounding that its float scores gather over a long text (unigram).
void Tokenizer::encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
  std::unordered_map<std::string_view, std::vector<int>> words;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = word_by_word_ ? begin + 1 : text.size();
    while (end < text.size() && !word_boundary(text[end - 1], text[end])) ++end;
    const std::string_view word = text.substr(begin, end - begin);
    const auto [entry, is_new] = words.try_emplace(word);
    if (is_new) {
      const auto status = model_->Encode(word, &entry->second);
      require(status.ok(), "cannot tokenize '{}': {}", excerpt(word), status.message());
    }
    ids.insert(ids.end(), entry->second.begin(), entry->second.end());
    begin = end;
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t plain = 0, at = 0;
  while (at < text.size()) {
    const auto first = static_cast<unsigned char>(text[at]);
    const size_t length = first < 0x80 ? 1 : utf8_sequence_length(text.substr(at));
    if (length > 0 && (first != 0xe2 || text.substr(at, length) != kSpaceMark)) {
      at += length;
      continue;
    }
    encode_plain(text.substr(plain, at - plain), ids);
    const size_t spelled = std::max<size_t>(length, 1);
    for (const char byte : text.substr(at, spelled)) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    plain = at += spelled;
  }
  encode_plain(text.substr(plain), ids);
  return ids;
}

std::string Tokenizer::decode(int32_t id) const {
  require(id >= 0 && id < vocab_size(), "token id {} is outside the tokenizer's vocabulary of {}", id, vocab_size());
  return surfaces_[id];
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) text += decode(id);
  return text;
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(surfaces_.size());
}
int32_t Tokenizer::bos_id() const {
  return model_->bos_id();
}
int32_t Tokenizer::eos_id() const {
  return model_->eos_id();
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
