#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;

namespace oryx {

// Cuts text into the matches of a regular expression and what lies between them (PCRE2, compiled to machine code where
// it can). Patterns mean what they mean to Oniguruma, which `tokenizers` uses, as far as pre-tokenizers go: \s is
// Unicode's White_Space, \p{L} and their like go by Unicode's categories. Const members may be called from several
// threads.
class RegexSplitter {
 public:
  // InputError that begins with `where` when the pattern is none, or has one of the few constructs that differ.
  RegexSplitter(const std::string& pattern, const std::string& where);

  // Appends the pieces of `text`, which must be UTF-8; none is empty, and put together they are the text.
  void split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace oryx
