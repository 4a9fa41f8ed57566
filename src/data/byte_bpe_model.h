#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/byte_pair_merges.h"
#include "data/regex_splitter.h"
#include "data/tokenizer_model.h"

namespace oryx {

// Byte-level BPE as a tokenizer.json describes it.
class ByteBpeModel : public TokenizerModel {
 public:
  // What a tokenizer.json says (tokenizer_json.h).
  struct Parts {
    std::vector<std::string> tokens;                  // the bytes of every id; empty where there is none
    std::unordered_map<std::string, int32_t> lookup;  // of the tokens in the model's vocabulary
    std::array<int32_t, 256> byte_ids{};              // -1: none, for a byte that never occurs in UTF-8
    BytePairMerges merges;
    bool whole_words = false;              // a word that is a token needs no merges to get there
    bool nfc = false;                      // Unicode normalisation form C comes first
    std::vector<RegexSplitter> splitters;  // one after another on each other's pieces
    AddedTokens before, after;             // found before and after normalisation
    std::vector<int32_t> special;          // ids that decode to nothing
    int32_t bos_id = 0, eos_id = 0;
  };
  explicit ByteBpeModel(Parts parts);
  static std::string nfc(std::string_view text);  // UTF-8 in normalisation form C

  void encode(std::string_view text, SpecialTokens special, WordCache& words, std::vector<int32_t>& ids) const override;
  int32_t bos_id() const override { return parts_.bos_id; }
  int32_t eos_id() const override { return parts_.eos_id; }

 private:
  struct Call;  // one encode()
  Parts parts_;
};

}  // namespace oryx
