// Parse errors as exceptions, and the same nesting as in parse_json.
#define TOML_EXCEPTIONS 1
#define TOML_HEADER_ONLY 1
#define TOML_MAX_NESTED_VALUES 64
#include <toml++/toml.h>

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/text.h"

namespace oryx {
namespace {

constexpr int kMaxDepth = 64;

bool is_ascii(char c) {
  return static_cast<unsigned char>(c) < 0x80;
}

// Refuses what toml++ 3.3 cannot take, before it sees it. It builds a table per part of a dotted key and frees nested
// tables by recursion, so that one line "a.a.a.[...]" could exhaust the stack; and where it asks whether a character is
// white space, which is outside of strings and after a line-ending backslash, many that are not ASCII reach a
// __builtin_unreachable. TOML allows none of them outside of strings. Follows just enough of the lexical rules
// (comments, the four kinds of strings) to know what is what.
class LexicalCheck {
 public:
  LexicalCheck(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  void run() {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // byte order mark
    char before = '\n';                              // the last character that is not blank
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size()) - 1;
      } else if (c == '"' || c == '\'') {
        // In the middle of a bare word, as in +"x", the parser takes it for one more character of the word.
        require(std::string_view("\n=,[{.").find(before) != std::string_view::npos,
                "{}: line {}: not valid TOML: a quote after {}; strings follow one of = , [ {{ or begin a key", source_,
                line_, before == '"' || before == '\'' ? "a string" : "a bare word");
        if (!skip_string(c)) return;
      } else if (c == '.') {
        require(++dots_ < kMaxDepth, "{}: line {}: a key of more than {} parts; nest less deeply", source_, line_,
                kMaxDepth);
      } else if (std::string_view("=,\n[]{}").find(c) != std::string_view::npos) {
        dots_ = 0;
        line_ += c == '\n';
      } else {
        require(is_ascii(c), "{}: line {}: not valid TOML: names and values that are not ASCII must stand in quotes",
                source_, line_);
      }
      if (c != ' ' && c != '\t' && c != '\r') before = c;
    }
  }

 private:
  // From the opening quote to the last closing one; false when the string does not end, which the parser will say.
  bool skip_string(char quote) {
    const std::string delimiter(text_.substr(at_).starts_with(std::string(3, quote)) ? 3 : 1, quote);
    for (at_ += delimiter.size(); at_ < text_.size(); ++at_) {
      if (text_.substr(at_).starts_with(delimiter)) {
        at_ += delimiter.size() - 1;
        // Up to two quotes more belong to a multi-line string's content.
        for (int more = 0; delimiter.size() == 3 && more < 2 && text_.substr(at_ + 1).starts_with(quote); ++more) ++at_;
        return true;
      }
      if (text_[at_] == '\n') {
        if (delimiter.size() == 1) return false;
        ++line_;
      } else if (text_[at_] == '\\' && quote == '"') {
        const size_t next = text_.find_first_not_of(" \t\r\n", at_ + 1);
        require(next == std::string_view::npos || is_ascii(text_[next]),
                "{}: line {}: a backslash must not be followed by a character that is not ASCII", source_, line_);
        if (at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
      }
    }
    return false;
  }

  std::string_view text_;
  const std::string& source_;
  size_t at_ = 0, line_ = 1;
  int dots_ = 0;
};

Json convert(const toml::node& node, const std::string& source, int depth) {
  require(depth <= kMaxDepth, "{}: nested deeper than {} levels; nest less deeply", source, kMaxDepth);
  switch (node.type()) {
    case toml::node_type::table: {
      Json object = Json::object();
      auto& members = object.get_ref<Json::object_t&>();
      using Members = std::vector<std::pair<const std::string, Json>>;
      for (const auto& [key, value] : *node.as_table()) {
        static_cast<Members&>(members).emplace_back(std::string(key.str()), convert(value, source, depth + 1));
      }
      return object;
    }
    case toml::node_type::array: {
      Json array = Json::array();
      for (const auto& value : *node.as_array()) array.push_back(convert(value, source, depth + 1));
      return array;
    }
    case toml::node_type::string:
      return node.as_string()->get();
    case toml::node_type::integer:
      return node.as_integer()->get();
    case toml::node_type::floating_point:
      return node.as_floating_point()->get();
    case toml::node_type::boolean:
      return node.as_boolean()->get();
    default:
      input_error("{}: line {}: dates and times have no meaning here; put the value in quotes", source,
                  node.source().begin.line);
  }
}

}  // namespace

Json parse_toml(std::string_view text, const std::string& source) {
  LexicalCheck(text, source).run();
  try {
    return convert(toml::parse(text, source), source, 0);
  } catch (const toml::parse_error& error) {
    const toml::source_position at = error.source().begin;
    input_error("{}: line {}, column {}: not valid TOML: {}", source, at.line, at.column,
                excerpt(error.description(), 200));
  }
}

Json load_toml(const std::filesystem::path& path) {
  return parse_toml(read_text_file(path), path.string());
}

namespace {

Json parse_value(std::string_view text) {
  // A line break could smuggle in a second assignment.
  if (text.find_first_of("\r\n") == std::string_view::npos) {
    try {
      Json parsed = parse_toml("value = " + std::string(text), "value");
      if (parsed.size() == 1) return std::move(parsed["value"]);
    } catch (const InputError&) {
      // Not TOML: a bare string, such as a path.
    }
  }
  return std::string(text);
}

}  // namespace

void apply_override(Json& object, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  require(equals != std::string_view::npos && equals > 0, "--set '{}': expected KEY=VALUE, e.g. train.lr=3e-4",
          excerpt(assignment));
  for (std::string_view rest = assignment; !rest.empty();) {
    const size_t length = utf8_sequence_length(rest);
    require(length > 0, "--set '{}': not valid UTF-8", excerpt(assignment));
    rest.remove_prefix(length);
  }
  std::string_view keys = assignment.substr(0, equals);
  Json* target = &object;
  for (int depth = 0;; ++depth) {
    const size_t dot = keys.find('.');
    const std::string key(trim(keys.substr(0, dot)));
    require(!key.empty(), "--set '{}': an empty part in the key; expected KEY=VALUE, e.g. train.lr=3e-4",
            excerpt(assignment));
    require(depth < kMaxDepth, "--set '{}': a key of more than {} parts", excerpt(assignment), kMaxDepth);
    if (target->is_null()) *target = Json::object();
    require(target->is_object(), "--set '{}': what comes before '.{}' is a value and has no members",
            excerpt(assignment), excerpt(key));
    target = &(*target)[key];
    if (dot == std::string_view::npos) break;
    keys.remove_prefix(dot + 1);
  }
  *target = parse_value(trim(assignment.substr(equals + 1)));
}

}  // namespace oryx
