#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/json.h"

namespace oryx {
namespace {

std::string key_text(const std::string& key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-';
  });
  return bare ? key : Json(key).dump();
}

// JSON writes numbers, booleans and strings as TOML does, but for DEL, which TOML wants escaped.
std::string value_text(const Json& value) {
  if (value.is_object()) {
    std::string members;
    for (const auto& [key, member] : value.items())
      if (!member.is_null())
        members += fmt::format("{}{} = {}", members.empty() ? "" : ", ", key_text(key), value_text(member));
    return "{" + members + "}";
  }
  if (value.is_array()) {
    std::string items;
    for (const Json& item : value) items += (items.empty() ? "" : ", ") + value_text(item);
    return "[" + items + "]";
  }
  std::string text = value.dump();
  for (size_t at = 0; (at = text.find('\x7f', at)) != std::string::npos;) text.replace(at, 1, "\\u007f");
  return text;
}

void write(const Json& table, const std::string& name, std::string& out) {
  for (const auto& [key, value] : table.items())
    if (!value.is_object() && !value.is_null()) out += key_text(key) + " = " + value_text(value) + "\n";
  for (const auto& [key, value] : table.items()) {
    if (!value.is_object()) continue;
    const std::string full = name.empty() ? key_text(key) : name + "." + key_text(key);
    out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", full);
    write(value, full, out);
  }
}

}  // namespace

std::string to_toml(const Json& table) {
  std::string out;
  write(table, "", out);
  return out;
}

}  // namespace oryx
