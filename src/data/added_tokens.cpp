#include "data/added_tokens.h"

#include <algorithm>
#include <utility>

namespace oryx {

void AddedTokens::add(Token token) {
  begins_[static_cast<unsigned char>(token.text.front())] = true;
  const auto shorter = std::find_if(tokens_.begin(), tokens_.end(),
                                    [&](const Token& other) { return other.text.size() < token.text.size(); });
  tokens_.insert(shorter, std::move(token));
}

AddedTokens::Match AddedTokens::find(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size() && !tokens_.empty(); ++at) {
    if (!begins_[static_cast<unsigned char>(text[at])]) continue;
    for (const Token& token : tokens_)
      if (text.substr(at).starts_with(token.text)) return {&token, at};
  }
  return {nullptr, text.size()};
}

}  // namespace oryx
