#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace oryx {

// What a Tokenizer does, for one kind of tokenizer file. Const members may be called from several threads.
class TokenizerModel {
 public:
  TokenizerModel() = default;
  TokenizerModel(const TokenizerModel&) = delete;
  TokenizerModel& operator=(const TokenizerModel&) = delete;
  virtual ~TokenizerModel() = default;
  // Appends the ids of `text`, which may be any bytes. `words` belongs to this model and to the calling thread.
  virtual void encode(std::string_view text, SpecialTokens special, WordCache& words,
                      std::vector<int32_t>& ids) const = 0;
  virtual int32_t bos_id() const = 0;
  virtual int32_t eos_id() const = 0;
  // What each id decodes to; nothing for special tokens.
  const std::vector<std::string>& surfaces() const { return surfaces_; }

 protected:
  std::vector<std::string> surfaces_;
};

}  // namespace oryx
