#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace oryx {

struct ContinuationTokens {
  std::vector<int64_t> tokens;
  int64_t first = 1;  // of the continuation; at least 1
};

// Context and continuation are encoded together, since a token may span their border, and cut where the context alone
// would end; spaces at the context's end go with the continuation, whose first token they belong to. Where no token is
// the context's, the end-of-text token stands before them. InputError when there is nothing to continue with.
ContinuationTokens encode_continuation(const Tokenizer& tokenizer, const std::string& context,
                                       const std::string& continuation);

// Tokens of the context alone, without the spaces at its end: where what follows it begins.
int64_t count_context_tokens(const Tokenizer& tokenizer, const std::string& context);

}  // namespace oryx
