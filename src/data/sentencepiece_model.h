#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/tokenizer_model.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace oryx {

class SentencePieceModel : public TokenizerModel {
 public:
  // From the bytes of a model file; `source` is its name in messages.
  SentencePieceModel(const std::string& bytes, const std::string& source);
  ~SentencePieceModel() override;

  void encode(std::string_view text, SpecialTokens special, WordCache& words, std::vector<int32_t>& ids) const override;
  int32_t bos_id() const override;
  int32_t eos_id() const override;

 private:
  void encode_plain(std::string_view text, WordCache& words, std::vector<int32_t>& ids) const;
  void encode_bytes(std::string_view text, WordCache& words, std::vector<int32_t>& ids) const;
  bool restores(std::string_view text) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_;
  std::vector<int32_t> byte_ids_;                         // of the 256 byte pieces
  std::vector<std::pair<std::string, int32_t>> special_;  // control pieces
  bool word_by_word_ = true;                              // no piece reaches past the end of a word or a line
};

}  // namespace oryx
