#pragma once

#include <string_view>

#include "base/json.h"
#include "data/tokenizer.h"
#include "generate/policy.h"
#include "model/language_model.h"

namespace oryx {

struct PerplexityResult {
  double nats_per_token = 0, perplexity = 0;
  double bits_per_byte = 0;       // over the bytes of the predicted tokens
  int64_t tokens = 0;             // predicted
  double attention_fraction = 0;  // of the tokens read
  Json to_json() const;
};

// Documents (separated by <|endoftext|> lines) are cut into windows of `context` tokens that do not overlap; each
// window is a sequence of its own, in which every token but a document's first is predicted, the end-of-text token
// included. No token is given to the policy beforehand, since all are predicted. InputError for empty text.
PerplexityResult evaluate_perplexity(const LanguageModel& model, const Tokenizer& tokenizer, std::string_view text,
                                     const Policy& policy, int64_t context);

}  // namespace oryx
