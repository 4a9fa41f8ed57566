#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace oryx {
namespace {

std::string shown(const Json& value) {
  if (value.is_object()) return "a table";
  if (value.is_array()) return "an array";
  if (value.is_string()) return fmt::format("\"{}\"", excerpt(value.get_ref<const std::string&>(), 60));
  return value.dump();
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment), case ignored.
size_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::string did_you_mean(std::string_view given, const std::vector<std::string>& known) {
  constexpr size_t kLongest = 64;
  if (given.empty() || given.size() > kLongest) return "";
  const std::string* best = nullptr;
  // Few enough edits that most of the word is right.
  size_t best_distance = std::min<size_t>(3, std::max<size_t>(1, given.size() / 3)) + 1;
  for (const std::string& name : known) {
    if (name.size() > kLongest) continue;
    const size_t distance = edit_distance(given, name);
    if (distance < best_distance) {
      best_distance = distance;
      best = &name;
    }
  }
  return best ? fmt::format("; did you mean '{}'?", *best) : "";
}

Fields::Fields(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {
  require(object.is_object(), "{}: must be a table of keys and values, not {}", where_, shown(object));
}

const Json* Fields::find(std::string_view key) {
  known_.emplace(key);
  const auto it = object_->find(key);
  return it == object_->end() ? nullptr : &*it;
}

// A key that is missing may be there misspelt.
static void require_present(bool present, const Json& object, const std::string& where, std::string_view key,
                            const std::string& wanted) {
  if (present) return;
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  std::string near = did_you_mean(key, names);
  if (!near.empty())
    near = "; is " + near.substr(near.find('\''), near.rfind('\'') + 1 - near.find('\'')) + " meant for it?";
  input_error("{}: '{}' is missing; it must be {}{}", where, key, wanted, near);
}

bool Fields::has(std::string_view key) {
  return find(key) != nullptr;
}

int64_t Fields::integer(std::string_view key, std::optional<int64_t> fallback) {
  const Json* value = find(key);
  require_present(value || fallback, *object_, where_, key, "an integer");
  if (!value) return *fallback;
  const bool valid =
      value->is_number_integer() &&
      (value->is_number_unsigned() ? value->get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()}
                                   : value->get<int64_t>() >= 0);
  require(valid, "{}: '{}' must be an integer from 0 to 2^63-1, not {}", where_, key, shown(*value));
  return value->get<int64_t>();
}

double Fields::number(std::string_view key, std::optional<double> fallback) {
  const Json* value = find(key);
  require_present(value || fallback, *object_, where_, key, "a number");
  if (!value) return *fallback;
  require(value->is_number(), "{}: '{}' must be a number, not {}", where_, key, shown(*value));
  const double number = value->get<double>();
  require(std::isfinite(number), "{}: '{}' must be a finite number", where_, key);
  return number;
}

bool Fields::boolean(std::string_view key, std::optional<bool> fallback) {
  const Json* value = find(key);
  require_present(value || fallback, *object_, where_, key, "true or false");
  if (!value) return *fallback;
  require(value->is_boolean(), "{}: '{}' must be true or false, not {}", where_, key, shown(*value));
  return value->get<bool>();
}

std::string Fields::string(std::string_view key, std::optional<std::string> fallback) {
  const Json* value = find(key);
  require_present(value || fallback, *object_, where_, key, "a string");
  if (!value) return *fallback;
  require(value->is_string(), "{}: '{}' must be a string, not {}", where_, key, shown(*value));
  return value->get<std::string>();
}

std::string Fields::choice(std::string_view key, const std::vector<std::string>& allowed,
                           std::optional<std::string> fallback) {
  const Json* value = find(key);
  require_present(value || fallback, *object_, where_, key, "one of " + joined(allowed));
  if (!value) return *fallback;
  const bool valid =
      value->is_string() && std::find(allowed.begin(), allowed.end(), value->get<std::string>()) != allowed.end();
  if (!valid)
    input_error("{}: '{}' must be one of {}, not {}{}", where_, key, joined(allowed), shown(*value),
                value->is_string() ? did_you_mean(value->get_ref<const std::string&>(), allowed) : "");
  return value->get<std::string>();
}

std::vector<std::string> Fields::strings(std::string_view key, std::optional<std::vector<std::string>> fallback) {
  const Json* value = find(key);
  require_present(value || fallback, *object_, where_, key, "an array of strings");
  if (!value) return *std::move(fallback);
  const bool valid =
      value->is_array() && std::all_of(value->begin(), value->end(), [](const Json& item) { return item.is_string(); });
  require(valid, "{}: '{}' must be an array of strings", where_, key);
  return value->get<std::vector<std::string>>();
}

Fields Fields::table(std::string_view key) {
  static const Json empty = Json::object();
  const Json* value = find(key);
  // "recipe.toml" -> "recipe.toml: [train]" -> "recipe.toml: [train.sub]"
  std::string where = where_.ends_with(']') ? where_.substr(0, where_.size() - 1) + "." : where_ + ": [";
  return Fields(value ? *value : empty, where + std::string(key) + "]");
}

const Json& Fields::raw(std::string_view key) {
  static const Json null;
  const Json* value = find(key);
  return value ? *value : null;
}

void Fields::finish() const {
  for (const auto& [key, value] : object_->items()) {
    if (known_.contains(key)) continue;
    const std::vector<std::string> names(known_.begin(), known_.end());
    std::string hint = did_you_mean(key, names);
    if (hint.empty() && !names.empty()) hint = "; the keys here are " + joined(names);
    input_error("{}: unknown key '{}'{}", where_, excerpt(key), hint);
  }
}

}  // namespace oryx
