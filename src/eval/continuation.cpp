#include "eval/continuation.h"

#include <algorithm>

#include "base/error.h"

namespace oryx {

int64_t count_context_tokens(const Tokenizer& tokenizer, const std::string& context) {
  const std::string_view text(context);
  return static_cast<int64_t>(tokenizer.encode(text.substr(0, text.find_last_not_of(' ') + 1)).size());
}

ContinuationTokens encode_continuation(const Tokenizer& tokenizer, const std::string& context,
                                       const std::string& continuation) {
  const auto whole = tokenizer.encode(context + continuation);
  require(!whole.empty(), "there is nothing to continue with: context and continuation are empty");
  ContinuationTokens out{{whole.begin(), whole.end()}, 1};
  out.first = std::min(count_context_tokens(tokenizer, context), static_cast<int64_t>(whole.size()) - 1);
  if (out.first == 0) {
    out.tokens.insert(out.tokens.begin(), tokenizer.eos_id());
    out.first = 1;
  }
  return out;
}

}  // namespace oryx
