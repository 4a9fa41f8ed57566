#pragma once

#include <memory>
#include <string>

struct pcre2_real_code_8;

namespace oryx {

// Replaces every match of a regular expression (PCRE2 with Unicode's classes, as Python's re for the usual patterns);
// the replacement names groups as $1.
class RegexReplacer {
 public:
  // InputError that begins with `where` when the pattern is none.
  RegexReplacer(const std::string& pattern, std::string replacement, const std::string& where);
  std::string replace(const std::string& text) const;  // UTF-8

 private:
  std::shared_ptr<const pcre2_real_code_8> code_;
  std::string replacement_;
};

}  // namespace oryx
