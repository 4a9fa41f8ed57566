#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace oryx {

using Json = nlohmann::ordered_json;

// Strict parsers; errors are InputErrors of one line that name `source` (a path or "--set"), and line and column where
// the parser knows them. Duplicate keys, trailing text and nesting deeper than 64 are refused.
Json parse_json(std::string_view text, const std::string& source);
Json load_json(const std::filesystem::path& path);
Json parse_toml(std::string_view text, const std::string& source);
Json load_toml(const std::filesystem::path& path);

// A table as TOML that parse_toml reads back: values first, then nested tables under their headings; nulls are left
// out.
std::string to_toml(const Json& table);

// Sets `object["a"]["b"]` from "a.b=value"; the value is read as TOML (3e-4, true, "text", [1, 2]), and as a bare
// string when it is none. An override of a key that the reader does not know is refused by Fields::finish later.
void apply_override(Json& object, std::string_view assignment);

// Reads an object's members by name with checked types, and at the end refuses what nobody asked for, with a
// suggestion.
class Fields {
 public:
  // `where` begins every message, e.g. "model/config.json" or "recipe.toml: [train]". The object must outlive this.
  Fields(const Json& object, std::string where);

  bool has(std::string_view key);
  // The member, or the default when it is absent. InputError when the type is wrong (an integer where a float is wanted
  // is fine; a float where an integer is wanted is not; a negative or too large integer is refused).
  int64_t integer(std::string_view key, std::optional<int64_t> fallback = std::nullopt);
  double number(std::string_view key, std::optional<double> fallback = std::nullopt);  // finite
  bool boolean(std::string_view key, std::optional<bool> fallback = std::nullopt);
  std::string string(std::string_view key, std::optional<std::string> fallback = std::nullopt);
  // One of `allowed`; the message lists them and suggests the nearest.
  std::string choice(std::string_view key, const std::vector<std::string>& allowed,
                     std::optional<std::string> fallback = std::nullopt);
  std::vector<std::string> strings(std::string_view key,
                                   std::optional<std::vector<std::string>> fallback = std::nullopt);
  // A nested object; an empty one when absent.
  Fields table(std::string_view key);
  // The raw member (null when absent), marked as read.
  const Json& raw(std::string_view key);

  // InputError for the first member that was never asked for: "WHERE: unknown key 'learning_rat'; did you mean
  // 'learning_rate'?" The names asked for so far are the known ones.
  void finish() const;

  const std::string& where() const { return where_; }

 private:
  const Json* find(std::string_view key);

  const Json* object_;
  std::string where_;
  std::set<std::string, std::less<>> known_;
};

// "; did you mean 'x'?" for the nearest name within a few edits, else "".
std::string did_you_mean(std::string_view given, const std::vector<std::string>& known);

}  // namespace oryx
