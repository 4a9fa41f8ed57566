#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/regex_replacer.h"

#include <pcre2.h>

#include "base/error.h"
#include "base/text.h"

namespace oryx {

RegexReplacer::RegexReplacer(const std::string& pattern, std::string replacement, const std::string& where)
    : replacement_(std::move(replacement)) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  require(code != nullptr, "{}: not a regular expression (at character {}): '{}'", where, offset, excerpt(pattern));
  code_.reset(code, pcre2_code_free);
}

std::string RegexReplacer::replace(const std::string& text) const {
  std::string out(text.size() + text.size() / 8 + 64, '\0');
  for (;;) {
    PCRE2_SIZE length = out.size();
    const int count = pcre2_substitute(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                       PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH | PCRE2_NO_UTF_CHECK,
                                       nullptr, nullptr, reinterpret_cast<PCRE2_SPTR>(replacement_.data()),
                                       replacement_.size(), reinterpret_cast<PCRE2_UCHAR*>(out.data()), &length);
    if (count == PCRE2_ERROR_NOMEMORY) {
      out.resize(length);
      continue;
    }
    require(count >= 0, "a substitution failed on '{}': its pattern takes too long, or its replacement names no group",
            excerpt(text));
    out.resize(length);
    return out;
  }
}

}  // namespace oryx
