#include "eval/example.h"

#include <algorithm>

#include "base/error.h"
#include "data/json_lines.h"

namespace oryx {
namespace {

constexpr const char* kOwnKeys[] = {"id", "context", "question", "choices", "answer", "answers", "continuation"};

Example parse_example(const Json& record, const std::string& where) {
  require(record.is_object(), "{}: an example must be a JSON object, such as {{\"context\": ...}}", where);
  Fields fields(record, where);
  Example example;
  example.where = where;
  example.id = fields.string("id", where.substr(where.rfind(':') + 1));
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
  std::vector<Example> examples;
  for_each_json_line(
      path, [&](const Json& record, const std::string& where) { examples.push_back(parse_example(record, where)); });
  require(!examples.empty(), "{}: there is no example; give JSON lines", path.string());
  return examples;
}

}  // namespace oryx
