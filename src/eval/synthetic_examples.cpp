#include "eval/synthetic_examples.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "data/facts.h"
#include "data/permutation.h"
#include "data/text_file.h"

namespace oryx {
namespace {

constexpr uint64_t kPurpose = 0x6e6565646c657300;
constexpr size_t kSentenceBytes = 400;  // where a text has no end of a sentence for so long, a word's end does

// Each begins with a space; runs of whitespace become one.
std::vector<std::string> split_sentences(std::string_view text) {
  std::vector<std::string> sentences;
  std::string sentence;
  for (size_t at = 0;;) {
    at = text.find_first_not_of(" \t\r\n", at);
    if (at == std::string_view::npos) break;
    const size_t end = std::min(text.find_first_of(" \t\r\n", at), text.size());
    const std::string_view word = text.substr(at, end - at);
    at = end;
    if (word == kDocumentSeparator) continue;
    sentence += ' ';
    sentence += word;
    const size_t last = word.find_last_not_of("\"')");
    const bool ends =
        last != std::string_view::npos && std::string_view(".!?").find(word[last]) != std::string_view::npos;
    if (ends || sentence.size() > kSentenceBytes) sentences.push_back(std::exchange(sentence, ""));
  }
  if (!sentence.empty()) sentences.push_back(sentence);
  return sentences;
}

struct Query {
  std::string question;
  std::vector<std::string> answers;
  std::string first_statement;
};

struct Text {
  std::string heading;
  std::vector<std::string> pieces;
  std::vector<Query> queries;

  std::string context() const {
    std::string all = heading;
    for (const std::string& piece : pieces) all += piece;
    return all;
  }
};

// The question with all of its answer.
std::string tail(const Query& query) {
  std::string text = "\n" + query.question;
  for (size_t i = 0; i < query.answers.size(); ++i) text += (i == 0 ? " " : ", ") + query.answers[i];
  return text;
}

class Maker {
 public:
  Maker(const SyntheticExamples& task, const Tokenizer& tokenizer) : task_(task), encoder_(tokenizer) {
    if (task.haystack == "text") {
      sentences_ = split_sentences(read_utf8_file(task.text));
      require(!sentences_.empty(), "{}: holds no text to hide needles in", task.text.string());
    } else {
      sentences_.assign(std::begin(kFiller), std::end(kFiller));
    }
  }

  Text make(Random random) {
    Facts facts(random);
    return task_.kind == "needle" ? haystack(facts, random) : phone_book(facts, random);
  }

  int64_t count(const std::string& text) {
    ids_.clear();
    encoder_.encode(text, ids_);
    return static_cast<int64_t>(ids_.size());
  }

 private:
  int64_t longest_tail(const std::vector<Query>& queries) {
    int64_t tokens = 0;
    for (const Query& query : queries) tokens = std::max(tokens, count(tail(query)));
    return tokens;
  }

  Text phone_book(Facts& facts, Random& random) {
    Text text;
    text.heading = kPhoneBookHeading;
    std::vector<Query> known;
    int64_t room = task_.length - count(text.heading), longest = 0;  // question
    for (;;) {
      const Fact fact = facts.draw();
      const Query query{question(task_.kind, fact.name), {fact.number}, statement(task_.kind, fact)};
      longest = std::max(longest, count(tail(query)));
      room -= count(query.first_statement);
      if (room < longest) break;
      text.pieces.push_back(query.first_statement);
      known.push_back(query);
    }
    require(static_cast<int64_t>(text.pieces.size()) >= task_.queries,
            "a length of {} tokens is too short for a phone book with {} queries", task_.length, task_.queries);
    const Permutation order(known.size(), {random.next()});
    for (int64_t i = 0; i < task_.queries; ++i) text.queries.push_back(known[order(i)]);
    return text;
  }

  Text haystack(Facts& facts, Random& random) {
    Text text;
    std::vector<std::string> needles;
    int64_t room = task_.length;
    const Permutation order(task_.keys, {random.next()});
    for (int64_t key = 0; key < task_.keys; ++key) {
      Fact fact = facts.draw();
      Query query{question(task_.kind, fact.name), {}, statement(task_.kind, fact)};
      if (task_.values > 1) query.question = fmt::format("The special magic numbers for {} are:", fact.name);
      for (int64_t value = 0; value < task_.values; ++value) {
        if (value > 0) fact.number = facts.draw_number();
        query.answers.push_back(fact.number);
        needles.push_back(statement(task_.kind, fact));
        room -= count(needles.back());
      }
      if (static_cast<int64_t>(order(key)) < task_.queries) text.queries.push_back(std::move(query));
    }
    room -= longest_tail(text.queries);
    require(room >= 0, "a length of {} tokens is too short for {} needles and a question", task_.length,
            needles.size());
    size_t at = random.below(sentences_.size());
    std::vector<std::string> filler;
    for (;; ++at) {
      std::string piece =
          task_.haystack == "needles" ? statement(task_.kind, facts.draw()) : sentences_[at % sentences_.size()];
      room -= count(piece);
      if (room < 0) break;
      filler.push_back(std::move(piece));
    }
    std::vector<size_t> places;  // of the needles: before so many sentences of filler
    for (size_t i = 0; i < needles.size(); ++i) places.push_back(random.below(filler.size() + 1));
    std::sort(places.begin(), places.end());
    for (size_t i = 0, needle = 0; i <= filler.size(); ++i) {
      while (needle < needles.size() && places[needle] == i) text.pieces.push_back(needles[needle++]);
      if (i < filler.size()) text.pieces.push_back(filler[i]);
    }
    return text;
  }

  const SyntheticExamples& task_;
  Encoder encoder_;
  std::vector<std::string> sentences_;
  std::vector<int32_t> ids_;
};

}  // namespace

SyntheticExamples SyntheticExamples::from_json(const Json& table, const std::string& where,
                                               const std::filesystem::path& directory) {
  require(table.is_object(), "{}: there is no such table; give at least task = \"needle\" or \"phone_book\"", where);
  SyntheticExamples task;
  Fields fields(table, where);
  const auto positive = [&](const char* key, int64_t fallback, int64_t most) {
    const int64_t value = fields.integer(key, fallback);
    require(value >= 1 && value <= most, "{}: '{}' must be 1 to {}, but is {}", where, key, most, value);
    return value;
  };
  task.kind = fields.choice("task", {"needle", "phone_book"});
  task.queries = positive("queries", task.queries, 1024);
  task.length = positive("length", task.length, 1 << 24);
  task.examples = positive("examples", task.examples, 1 << 24);
  if (task.kind == "needle") {
    task.keys = positive("keys", task.queries, 1024);
    task.values = positive("values", task.values, 1024);
    task.haystack = fields.choice("haystack", {"sentences", "needles", "text"}, task.haystack);
    if (task.haystack == "text") task.text = directory / fields.string("text");
    require(task.queries <= task.keys, "{}: 'queries' must be at most the number of keys {}, but is {}", where,
            task.keys, task.queries);
  }
  fields.finish();
  return task;
}

std::vector<Example> SyntheticExamples::make(const Tokenizer& tokenizer, int64_t count, uint64_t seed) const {
  Maker maker(*this, tokenizer);
  std::vector<Example> examples;
  for (uint64_t number = 0; static_cast<int64_t>(examples.size()) < count; ++number) {
    const Text text = maker.make(Random{seed, kPurpose, number});
    const std::string context = text.context();
    for (size_t i = 0; i < text.queries.size() && static_cast<int64_t>(examples.size()) < count; ++i) {
      const Query& query = text.queries[i];
      Example example;
      example.id = fmt::format("{}-{}.{}", kind, number, i);
      example.where = example.id;
      example.context = context;
      example.question = query.question;
      example.answers = query.answers;
      const double at = static_cast<double>(context.find(query.first_statement));
      example.fields = {{"depth", at / static_cast<double>(context.size())},
                        {"tokens", maker.count(context + tail(query))}};
      examples.push_back(std::move(example));
    }
  }
  return examples;
}

}  // namespace oryx
