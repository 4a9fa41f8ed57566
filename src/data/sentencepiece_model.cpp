#include "data/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/word_cache.h"

namespace oryx {
namespace {

// SentencePiece writes a space as U+2581 within pieces, so that a U+2581 of the text must not reach it.
constexpr std::string_view kSpaceMark = "\u2581";
constexpr std::string_view kReplacement = "\uFFFD";

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

SentencePieceModel::SentencePieceModel(const std::string& bytes, const std::string& source)
    : model_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  require(!bytes.empty(), "{}: the file is empty; it should be a SentencePiece model", source);
  const auto status = model_->LoadFromSerializedProto(bytes);
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
    if (model_->IsControl(id) && id != model_->unk_id()) special_.emplace_back(model_->IdToPiece(id), id);
    for (size_t i = 1; i < surface.size(); ++i) word_by_word_ &= !word_boundary(surface[i - 1], surface[i]);
  }
  // Normalisation, dummy prefixes and dropped spaces show in these, and so does a file cut short before its options.
  for (const char* probe :
       {"a", " a  b ", "\t\n\n x\r\n", "\uFF21\u00BD e\u0301 \u00A0\u3000", "<s></s>", "\U0001F600"}) {
    require(restores(probe),
            "{}: the model changes text (normalisation or whitespace), or is damaged; train one with oryx", source);
  }
}

bool SentencePieceModel::restores(std::string_view text) const {
  WordCache words;
  std::vector<int32_t> ids;
  encode(text, SpecialTokens::as_text, words, ids);
  std::string back;
  for (const int32_t id : ids) back += surfaces_[id];
  return back == text;
}

SentencePieceModel::~SentencePieceModel() = default;

// No piece crosses the end of a word, so that each word can be encoded by itself: many times faster on long texts,
// where most words have been met before. The pieces are those SentencePiece finds for the whole (BPE), or better by the
// rounding that its float scores gather over a long text (unigram).
void SentencePieceModel::encode_plain(std::string_view text, WordCache& words, std::vector<int32_t>& ids) const {
  std::vector<int> pieces;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = word_by_word_ ? begin + 1 : text.size();
    while (end < text.size() && !word_boundary(text[end - 1], text[end])) ++end;
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    if (words.append(word, ids)) continue;
    const auto status = model_->Encode(word, &pieces);
    if (!status.ok()) input_error("cannot tokenize '{}': {}", excerpt(word), status.message());
    words.add(word, pieces);
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }
}

// As encode_plain, for text that holds U+2581 or is not UTF-8.
void SentencePieceModel::encode_bytes(std::string_view text, WordCache& words, std::vector<int32_t>& ids) const {
  size_t plain = 0, at = 0;
  while (at < text.size()) {
    const auto first = static_cast<unsigned char>(text[at]);
    const size_t length = first < 0x80 ? 1 : utf8_sequence_length(text.substr(at));
    if (length > 0 && (first != 0xe2 || text.substr(at, length) != kSpaceMark)) {
      at += length;
      continue;
    }
    encode_plain(text.substr(plain, at - plain), words, ids);
    const size_t spelled = std::max<size_t>(length, 1);
    for (const char byte : text.substr(at, spelled)) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    plain = at += spelled;
  }
  encode_plain(text.substr(plain), words, ids);
}

void SentencePieceModel::encode(std::string_view text, SpecialTokens special, WordCache& words,
                                std::vector<int32_t>& ids) const {
  if (special == SpecialTokens::as_text) return encode_bytes(text, words, ids);
  while (!text.empty()) {
    size_t at = text.size();
    const std::pair<std::string, int32_t>* found = nullptr;
    for (const auto& token : special_) {
      const size_t where = text.find(token.first);
      if (where < at) at = where, found = &token;
    }
    encode_bytes(text.substr(0, at), words, ids);
    if (!found) return;
    ids.push_back(found->second);
    text.remove_prefix(at + found->first.size());
  }
}

int32_t SentencePieceModel::bos_id() const {
  return model_->bos_id();
}
int32_t SentencePieceModel::eos_id() const {
  return model_->eos_id();
}

}  // namespace oryx
