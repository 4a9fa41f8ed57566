#include "eval/originals.h"

#include <unicode/locid.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "data/json_lines.h"
#include "data/text_file.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

// One record a line.
Records read_lines(const fs::path& path, const std::function<Json(Fields&, int64_t index)>& convert) {
  Records records;
  for_each_json_line(path, [&](const Json& json, const std::string& where) {
    require(json.is_object(), "{}: a record must be a JSON object", where);
    Fields fields(json, where);
    records.push_back(convert(fields, static_cast<int64_t>(records.size())));
  });
  return records;
}

const Json& array(Fields& fields, std::string_view key) {
  const Json& value = fields.raw(key);
  require(value.is_array(), "{}: '{}' must be an array", fields.where(), key);
  return value;
}

// Calls `visit` with the fields of each member of an array of objects.
void for_each(Fields& fields, std::string_view key, const std::function<void(Fields&)>& visit) {
  int64_t index = 0;
  for (const Json& item : array(fields, key)) {
    const std::string where = fmt::format("{}: {}[{}]", fields.where(), key, index++);
    require(item.is_object(), "{} must be an object", where);
    Fields members(item, where);
    visit(members);
  }
}

// In order, without repetitions and empty ones.
class Answers {
 public:
  void add(const std::string& text) {
    if (!text.empty() && std::ranges::find(list_, text) == list_.end()) list_.push_back(text);
  }
  const std::vector<std::string>& list(const std::string& where) const {
    require(!list_.empty(), "{}: there is no answer", where);
    return list_;
  }

 private:
  std::vector<std::string> list_;
};

// The first character in upper case, the others in lower case.
std::string capitalized(const std::string& text) {
  auto all = icu::UnicodeString::fromUTF8(text);
  const int32_t first = all.moveIndex32(0, 1);
  icu::UnicodeString head(all, 0, first), tail(all, first);
  std::string out;
  head.toUpper(icu::Locale::getRoot()).toUTF8String(out);
  tail.toLower(icu::Locale::getRoot()).toUTF8String(out);
  return out;
}

std::string drop_answer(Fields answer) {
  const std::string number =
      answer.raw("number").is_number() ? answer.raw("number").dump() : answer.string("number", "");
  if (!number.empty()) return number;
  std::string text;
  for (const std::string& span : answer.strings("spans", std::vector<std::string>{}))
    text += (text.empty() ? "" : ", ") + span;
  if (!text.empty()) return text;
  Fields date = answer.table("date");
  for (const char* part : {"day", "month", "year"}) {
    const std::string word = date.string(part, "");
    if (!word.empty()) text += (text.empty() ? "" : " ") + word;
  }
  return text;
}

}  // namespace

Records read_lambada(const fs::path& path) {
  return read_lines(path, [](Fields& record, int64_t index) {
    const std::string text = record.string("text");
    const size_t space = text.rfind(' ');
    require(space != std::string::npos && space + 1 < text.size(), "{}: 'text' must end in a space and a word",
            record.where());
    return Json{{"id", fmt::format("lambada-{}", index)},
                {"context", text.substr(0, space)},
                {"question", ""},
                {"answers", Json::array({text.substr(space + 1)})}};
  });
}

Records read_hellaswag(const fs::path& path) {
  return read_lines(path, [](Fields& record, int64_t index) {
    std::string context = record.string("activity_label") + ": " + record.string("ctx_a");
    const std::string rest = capitalized(record.string("ctx_b"));
    if (!rest.empty()) context += " " + rest;
    return Json{{"id", fmt::format("hellaswag-{}", index)},
                {"context", context},
                {"choices", record.strings("endings")},
                {"answer", record.integer("label")}};
  });
}

Records read_piqa(const fs::path& path) {
  const fs::path labels = path.parent_path() / (path.stem().string() + "-labels.lst");
  require(fs::exists(labels), "{}: no such file; PIQA's labels must lie beside {}", labels.string(),
          path.filename().string());
  std::vector<int64_t> answers;
  for (const char c : read_utf8_file(labels))
    if (c == '0' || c == '1') answers.push_back(c - '0');
  Records records = read_lines(path, [&](Fields& record, int64_t index) {
    require(index < static_cast<int64_t>(answers.size()), "{}: {} has only {} labels", record.where(), labels.string(),
            answers.size());
    return Json{{"id", fmt::format("piqa-{}", index)},
                {"context", record.string("goal")},
                {"choices", Json::array({record.string("sol1"), record.string("sol2")})},
                {"answer", answers[index]}};
  });
  require(records.size() == answers.size(), "{}: has {} labels, but {} has {} questions", labels.string(),
          answers.size(), path.string(), records.size());
  return records;
}

Records read_arc(const fs::path& path) {
  return read_lines(path, [](Fields& record, int64_t) {
    const std::string key = record.string("answerKey");
    Json choices = Json::array();
    int64_t answer = -1;
    Fields question = record.table("question");
    for_each(question, "choices", [&](Fields& choice) {
      if (choice.string("label") == key) answer = static_cast<int64_t>(choices.size());
      choices.push_back(choice.string("text"));
    });
    require(answer >= 0, "{}: 'answerKey' {} is the label of no choice", record.where(), key);
    return Json{
        {"id", record.string("id")}, {"context", question.string("stem")}, {"choices", choices}, {"answer", answer}};
  });
}

Records read_winogrande(const fs::path& path) {
  return read_lines(path, [](Fields& record, int64_t index) {
    const std::string sentence = record.string("sentence"), answer = record.string("answer");
    const size_t gap = sentence.find('_');
    require(gap != std::string::npos, "{}: 'sentence' has no gap '_'", record.where());
    require(answer == "1" || answer == "2", "{}: 'answer' must be \"1\" or \"2\", not '{}'", record.where(), answer);
    // What stands right before the gap, a quotation mark say, belongs to the choices.
    const size_t word = gap == 0 ? 0 : sentence.rfind(' ', gap - 1) + 1;
    const std::string glued = sentence.substr(word, gap - word);
    return Json{{"id", fmt::format("winogrande-{}", index)},
                {"context", trim(std::string_view(sentence).substr(0, word))},
                {"choices", Json::array({glued + record.string("option1"), glued + record.string("option2")})},
                {"continuation", trim(std::string_view(sentence).substr(gap + 1))},
                {"answer", answer == "1" ? 0 : 1}};
  });
}

Records read_blimp(const fs::path& path) {
  return read_lines(path, [](Fields& record, int64_t index) {
    const std::string uid = record.string("UID");
    return Json{{"id", fmt::format("{}-{}", uid, index)},
                {"context", ""},
                {"choices", Json::array({record.string("sentence_good"), record.string("sentence_bad")})},
                {"answer", 0},
                {"uid", uid},
                {"field", record.string("field")},
                {"term", record.string("linguistics_term")}};
  });
}

Records read_squad(const fs::path& path) {
  Records records;
  const Json json = parse_json(read_utf8_file(path), path.string());
  Fields file(json, path.string());
  for_each(file, "data", [&](Fields& article) {
    for_each(article, "paragraphs", [&](Fields& paragraph) {
      for_each(paragraph, "qas", [&](Fields& question) {
        Answers answers;
        for_each(question, "answers", [&](Fields& answer) { answers.add(answer.string("text")); });
        records.push_back({{"id", question.string("id")},
                           {"title", article.string("title", "")},
                           {"context", paragraph.string("context")},
                           {"question", question.string("question")},
                           {"answers", answers.list(question.where())}});
      });
    });
  });
  return records;
}

Records read_nq_open(const fs::path& path) {
  return read_lines(path, [](Fields& record, int64_t index) {
    Answers answers;
    for (const std::string& text : record.strings("answer")) answers.add(text);
    return Json{{"id", fmt::format("nq-{}", index)},
                {"context", ""},
                {"question", record.string("question")},
                {"answers", answers.list(record.where())}};
  });
}

Records read_triviaqa(const fs::path& path) {
  Records records;
  const Json json = parse_json(read_utf8_file(path), path.string());
  Fields file(json, path.string());
  for_each(file, "Data", [&](Fields& record) {
    Fields answer = record.table("Answer");
    Answers answers;
    answers.add(answer.string("Value", ""));
    for (const std::string& alias : answer.strings("Aliases", std::vector<std::string>{})) answers.add(alias);
    records.push_back({{"id", record.string("QuestionId")},
                       {"context", ""},
                       {"question", record.string("Question")},
                       {"answers", answers.list(record.where())}});
  });
  return records;
}

Records read_drop(const fs::path& path) {
  Records records;
  const Json json = parse_json(read_utf8_file(path), path.string());
  require(json.is_object(), "{}: must be one JSON object of passages", path.string());
  for (const auto& [id, value] : json.items()) {
    require(value.is_object(), "{}: {} must be an object", path.string(), id);
    Fields passage(value, path.string() + ": " + id);
    for_each(passage, "qa_pairs", [&](Fields& question) {
      Answers answers;
      answers.add(drop_answer(question.table("answer")));
      if (question.has("validated_answers"))
        for_each(question, "validated_answers", [&](Fields& answer) { answers.add(drop_answer(answer)); });
      records.push_back({{"id", question.string("query_id")},
                         {"context", passage.string("passage")},
                         {"question", question.string("question")},
                         {"answers", answers.list(question.where())}});
    });
  }
  return records;
}

}  // namespace oryx
