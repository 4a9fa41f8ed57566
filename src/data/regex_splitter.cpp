#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/regex_splitter.h"

#include <pcre2.h>

#include "base/error.h"
#include "base/text.h"

namespace oryx {
namespace {

// White_Space of Unicode's PropList; PCRE2's own \s also has U+180E.
constexpr std::string_view kWhiteSpace =
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

std::string translated(std::string_view pattern, const std::string& where) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's' && in_class) {
        out += kWhiteSpace;
      } else if (escaped == 's' || (escaped == 'S' && !in_class)) {
        out += escaped == 's' ? "[" : "[^";
        out += kWhiteSpace;
        out += ']';
      } else {
        require(escaped != 'S' && escaped != 'h' && escaped != 'H', "{}: \\{}{} is not supported in a pattern", where,
                escaped, escaped == 'S' ? " within brackets" : "");
        out += c;
        out += escaped;
      }
      continue;
    }
    require(!in_class || (c != '[' && pattern.substr(i, 2) != "&&"),
            "{}: brackets or && within brackets are not supported in a pattern", where);
    if (c == '[') {
      in_class = true;
      out += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      continue;
    }
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

}  // namespace

void RegexSplitter::Free::operator()(pcre2_real_code_8* code) const {
  pcre2_code_free(code);
}

RegexSplitter::RegexSplitter(const std::string& pattern, const std::string& where) {
  const std::string own = translated(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(own.data()), own.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
  if (!code_) {
    unsigned char message[256] = {};
    pcre2_get_error_message(error, message, sizeof message);
    input_error("{}: not a regular expression: {}: '{}'", where, reinterpret_cast<const char*>(message),
                excerpt(pattern));
  }
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where it fails, the matching is only slower
}

void RegexSplitter::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  const std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeMatch> context(pcre2_match_context_create(nullptr));
  require(match && context, "out of memory");
  pcre2_set_match_limit(context.get(), UINT32_MAX);  // megabytes of spaces are one match
  pcre2_set_heap_limit(context.get(), UINT32_MAX);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
  size_t done = 0;
  while (done < text.size()) {
    constexpr uint32_t kOptions = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int found = pcre2_match(code_.get(), subject, text.size(), done, kOptions, match.get(), context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
      found = pcre2_match(code_.get(), subject, text.size(), done, kOptions | PCRE2_NO_JIT, match.get(), context.get());
    require(found >= 0 || found == PCRE2_ERROR_NOMATCH,
            "cannot split '{}' into words: the tokenizer's pattern takes too long", excerpt(text.substr(done)));
    if (found < 0) break;
    if (bounds[0] > done) pieces.push_back(text.substr(done, bounds[0] - done));
    pieces.push_back(text.substr(bounds[0], bounds[1] - bounds[0]));
    done = bounds[1];
  }
  if (done < text.size()) pieces.push_back(text.substr(done));
}

}  // namespace oryx
