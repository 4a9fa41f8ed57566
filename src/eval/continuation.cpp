#include "eval/continuation.h"

#include <algorithm>

#include "base/error.h"

namespace oryx {

ContinuationTokens encode_continuation(const Tokenizer& tokenizer, std::string context, std::string continuation) {
  const size_t end = context.find_last_not_of(' ') + 1;
  continuation = context.substr(end) + continuation;
  context.resize(end);
  require(!continuation.empty(), "the continuation is empty");
  const auto whole = tokenizer.encode(context + continuation);
  ContinuationTokens out{{whole.begin(), whole.end()}, 1};
  const auto read = static_cast<int64_t>(tokenizer.encode(context).size());
  out.first = std::min(read, static_cast<int64_t>(whole.size()) - 1);
  if (out.first == 0) {
    out.tokens.insert(out.tokens.begin(), tokenizer.eos_id());
    out.first = 1;
  }
  return out;
}

}  // namespace oryx
