#include "eval/example.h"

#include <algorithm>

#include "base/error.h"
#include "data/text_file.h"

namespace oryx {
namespace {

constexpr const char* kOwnKeys[] = {"id", "context", "question", "choices", "answer", "answers", "continuation"};

Example parse_example(std::string_view line, const std::string& where, int64_t number) {
  const Json record = parse_json(line, where);
  require(record.is_object(), "{}: an example must be a JSON object, such as {{\"context\": ...}}", where);
  Fields fields(record, where);
  Example example;
  example.where = where;
  example.id = fields.string("id", std::to_string(number));
  example.context = fields.string("context", "");
  example.question = fields.string("question", "");
  example.continuation = fields.string("continuation", "");
  if (fields.has("choices")) {
    example.choices = fields.strings("choices");
    const auto n = static_cast<int64_t>(example.choices.size());
    require(n >= 2, "{}: 'choices' must hold at least two texts, but holds {}", where, n);
    example.answer = fields.integer("answer");
    require(example.answer >= 0 && example.answer < n, "{}: 'answer' is {}, but the {} choices count from 0", where,
            example.answer, n);
  } else {
    require(fields.has("answers"), "{}: give 'choices' and 'answer', or 'answers'", where);
    example.answers = fields.strings("answers");
    require(!example.answers.empty(), "{}: 'answers' is empty; give at least one", where);
  }
  for (const auto& [key, value] : record.items())
    if (std::ranges::find(kOwnKeys, key) == std::end(kOwnKeys)) example.fields[key] = value;
  return example;
}

}  // namespace

std::vector<Example> read_examples(const std::filesystem::path& path) {
  const std::string text = read_utf8_file(path);
  std::vector<Example> examples;
  int64_t number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    examples.push_back(parse_example(line, fmt::format("{}:{}", path.string(), number), number));
  }
  require(!examples.empty(), "{}: there is no example; give JSON lines", path.string());
  return examples;
}

}  // namespace oryx
