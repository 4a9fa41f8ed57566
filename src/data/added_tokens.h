#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace oryx {

// Tokens that are found in text before it is cut into words.
class AddedTokens {
 public:
  struct Token {
    std::string text;
    int32_t id;
    bool special;
  };
  struct Match {
    const Token* token;  // null: none, and `begin` is the end of the text
    size_t begin;
  };

  void add(Token token);  // not empty
  bool empty() const { return tokens_.empty(); }
  // The first place at or behind `from` where a token stands; of several there the longest.
  Match find(std::string_view text, size_t from) const;

 private:
  std::vector<Token> tokens_;  // the longest first
  std::array<bool, 256> begins_{};
};

}  // namespace oryx
