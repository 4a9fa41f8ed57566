#include "base/json.h"

#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

namespace oryx {
namespace {

constexpr size_t kMaxDepth = 64;

struct Position {
  size_t line, column;
};

Position position_of(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const size_t line_start = before.rfind('\n');
  return {1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n')),
          line_start == std::string_view::npos ? before.size() : before.size() - line_start - 1};
}

// Builds the value while it watches for what nlohmann's own builder lets pass: duplicate keys and deep nesting.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // not part of JSON text
  bool start_object(size_t) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Level& level = stack_.back();
    require(level.keys.insert(name).second, "{}: the key '{}' appears twice in one object; keep one of them", source_,
            excerpt(name));
    // The vector under the ordered map: its own insertion searches all keys so far, which is quadratic.
    auto& members = level.value->get_ref<Json::object_t&>();
    using Members = std::vector<std::pair<const std::string, Json>>;
    static_cast<Members&>(members).emplace_back(std::move(name), nullptr);
    return true;
  }

  bool parse_error(size_t offset, const std::string&, const nlohmann::detail::exception& error) override {
    const Position at = position_of(text_, offset);
    // "[json.exception.parse_error.101] parse error at line 1, column 2: what": keep the last part.
    std::string_view what = error.what();
    if (what.starts_with('[')) what.remove_prefix(std::min(what.size(), what.find(']') + 2));
    if (what.starts_with("parse error")) what.remove_prefix(std::min(what.size(), what.find(": ") + 2));
    input_error("{}: line {}, column {}: not valid JSON: {}", source_, at.line, at.column, excerpt(what, 200));
  }

 private:
  struct Level {
    Json* value;
    std::unordered_set<std::string> keys;
  };

  // Where the next value goes. A pointer stays good: nothing is added to a container while one inside it is open.
  template <typename Value>
  Json* place(Value&& value) {
    if (stack_.empty()) return &(root_ = std::forward<Value>(value));
    Json& parent = *stack_.back().value;
    if (parent.is_array()) return &parent.get_ref<Json::array_t&>().emplace_back(std::forward<Value>(value));
    Json& member = parent.get_ref<Json::object_t&>().back().second;
    return &(member = std::forward<Value>(value));
  }
  template <typename Value>
  bool add(Value&& value) {
    place(std::forward<Value>(value));
    return true;
  }
  bool open(Json&& container) {
    require(stack_.size() < kMaxDepth, "{}: nested deeper than {} levels; that is not a file Oryx can mean", source_,
            kMaxDepth);
    stack_.push_back({place(std::move(container)), {}});
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& source_;
  Json root_;
  std::vector<Level> stack_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& source) {
  require(!trim(text).empty(), "{}: empty; expected JSON", source);
  StrictBuilder builder(text, source);
  const bool complete = Json::sax_parse(text.begin(), text.end(), &builder);
  require(complete, "{}: not valid JSON", source);
  return builder.take();
}

Json load_json(const std::filesystem::path& path) {
  return parse_json(read_text_file(path), path.string());
}

}  // namespace oryx
