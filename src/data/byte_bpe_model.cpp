#include "data/byte_bpe_model.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/word_cache.h"

namespace oryx {
namespace {

// `text`, which must be UTF-8, in normalisation form C: the text itself where it is that already, else `storage`.
std::string_view to_nfc(std::string_view text, std::string& storage) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(status);
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  if (U_SUCCESS(status) && nfc->isNormalizedUTF8(piece, status)) return text;
  storage.clear();
  icu::StringByteSink<std::string> sink(&storage, static_cast<int32_t>(text.size()));
  if (U_SUCCESS(status)) nfc->normalizeUTF8(0, piece, sink, nullptr, status);
  require(U_SUCCESS(status), "cannot normalise text: {}", u_errorName(status));
  return storage;
}

}  // namespace

struct ByteBpeModel::Call {
  const Parts& parts;
  SpecialTokens special;
  WordCache& words;
  std::vector<int32_t>& ids;
  std::vector<std::string_view> pieces, cut;
  std::string normalized;
  std::vector<int32_t> word_ids;

  // Text that holds added tokens: `rest` takes what lies between them.
  template <typename Rest>
  void with_added(const AddedTokens& added, std::string_view text, Rest&& rest) {
    size_t done = 0;
    for (size_t from = 0; from < text.size();) {
      const auto [token, begin] = added.find(text, from);
      if (!token) break;
      from = begin + token->text.size();
      if (token->special && special == SpecialTokens::as_text) continue;
      rest(text.substr(done, begin - done));
      ids.push_back(token->id);
      done = from;
    }
    rest(text.substr(done));
  }

  // Bytes that are not UTF-8 stand for themselves, each a word of its own.
  void with_any_bytes(std::string_view text) {
    while (!text.empty()) {
      const size_t invalid = std::min(find_invalid_utf8(text), text.size());
      if (invalid > 0) valid(text.substr(0, invalid));
      if (invalid == text.size()) return;
      const int32_t id = parts.byte_ids[static_cast<unsigned char>(text[invalid])];
      if (id >= 0) {
        ids.push_back(id);
      } else {
        word("\uFFFD");
      }
      text.remove_prefix(invalid + 1);
    }
  }

  void valid(std::string_view text) {
    if (parts.nfc) text = to_nfc(text, normalized);
    with_added(parts.after, text, [this](std::string_view part) { plain(part); });
  }

  void plain(std::string_view text) {
    pieces.assign(1, text);
    if (text.empty()) return;
    for (const RegexSplitter& splitter : parts.splitters) {
      cut.clear();
      for (const std::string_view piece : pieces) splitter.split(piece, cut);
      std::swap(pieces, cut);
    }
    for (const std::string_view piece : pieces) word(piece);
  }

  void word(std::string_view text) {
    if (words.append(text, ids)) return;
    word_ids.clear();
    const auto whole = parts.whole_words ? parts.lookup.find(std::string(text)) : parts.lookup.end();
    if (whole != parts.lookup.end()) {
      word_ids.push_back(whole->second);
    } else {
      for (const char byte : text) word_ids.push_back(parts.byte_ids[static_cast<unsigned char>(byte)]);
      parts.merges.apply(word_ids);
    }
    words.add(text, word_ids);
    ids.insert(ids.end(), word_ids.begin(), word_ids.end());
  }
};

ByteBpeModel::ByteBpeModel(Parts parts) : parts_(std::move(parts)) {
  surfaces_ = parts_.tokens;
  for (const int32_t id : parts_.special) surfaces_[id].clear();
}

std::string ByteBpeModel::nfc(std::string_view text) {
  std::string storage;
  return std::string(to_nfc(text, storage));
}

void ByteBpeModel::encode(std::string_view text, SpecialTokens special, WordCache& words,
                          std::vector<int32_t>& ids) const {
  require(text.size() <= INT32_MAX, "a text of {} bytes is too long to tokenize at once", text.size());
  Call call{parts_, special, words, ids, {}, {}, {}, {}};
  call.with_added(parts_.before, text, [&](std::string_view part) { call.with_any_bytes(part); });
}

}  // namespace oryx
