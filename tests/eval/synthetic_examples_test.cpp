#include "eval/synthetic_examples.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "data/text_file.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

const Tokenizer& tokenizer(const std::string& name) {
  static std::map<std::string, Tokenizer> loaded;
  const auto found = loaded.find(name);
  if (found != loaded.end()) return found->second;
  const std::string path = ORYX_SOURCE_DIR "/tests/data/golden/" + name + ".json.zst";
  return loaded.emplace(name, Tokenizer::parse(read_utf8_file(path), name)).first->second;
}

SyntheticExamples task(const Json& table, const std::filesystem::path& directory = ".") {
  return SyntheticExamples::from_json(table, "t", directory);
}

std::vector<size_t> positions(const std::string& text, const std::string& part) {
  std::vector<size_t> found;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) found.push_back(at);
  return found;
}

TEST(SyntheticExamples, FillTheLengthInTokens) {
  for (const char* name : {"llama3", "gpt_neox"}) {
    const Tokenizer& t = tokenizer(name);
    for (const Json& table : {Json{{"task", "needle"}}, Json{{"task", "needle"}, {"keys", 4}, {"queries", 4}},
                              Json{{"task", "needle"}, {"haystack", "needles"}}, Json{{"task", "phone_book"}}}) {
      for (const int64_t length : {300, 1024, 16384}) {
        SyntheticExamples wanted = task(table);
        wanted.length = length;
        for (const Example& e : wanted.make(t, 5, 1)) {
          const auto tokens = static_cast<int64_t>(t.encode(e.context + "\n" + e.question + " " + e.answers[0]).size());
          EXPECT_LE(tokens, length);
          EXPECT_GT(tokens, length - 60) << table.dump();
          EXPECT_EQ(e.fields["tokens"], tokens);
        }
      }
    }
  }
}

TEST(SyntheticExamples, TheAnswerIsStatedOnceAboutTheNameAskedFor) {
  for (const char* kind : {"needle", "phone_book"}) {
    const bool needle = std::string(kind) == "needle";
    std::set<int> tenths;
    const auto examples = task({{"task", kind}, {"length", 700}}).make(tokenizer("llama3"), 100, 3);
    ASSERT_EQ(examples.size(), 100u);
    for (const Example& e : examples) {
      const std::string before = needle ? "The special magic number for " : "The number of ";
      ASSERT_EQ(e.question.rfind(before, 0), 0u) << e.question;
      const std::string name = e.question.substr(before.size(), e.question.size() - before.size() - 4);
      ASSERT_EQ(e.answers.size(), 1u);
      const std::string stated = needle ? " One of the special magic numbers for " + name + " is: " + e.answers[0] + "."
                                        : "\n" + name + ": " + e.answers[0];
      const auto found = positions(e.context, stated);
      ASSERT_EQ(found.size(), 1u) << stated << e.context;
      EXPECT_EQ(positions(e.context, name).size(), 1u);
      const double depth = e.fields["depth"];
      EXPECT_EQ(depth, static_cast<double>(found[0]) / static_cast<double>(e.context.size()));
      tenths.insert(static_cast<int>(depth * 10));
    }
    EXPECT_GE(tenths.size(), 9u);
  }
}

TEST(SyntheticExamples, MultiKeyMultiValueMultiQuery) {
  const auto& t = tokenizer("llama3");
  const Example keys = task({{"task", "needle"}, {"keys", 4}}).make(t, 1, 5)[0];
  EXPECT_EQ(positions(keys.context, "special magic numbers for").size(), 4u);
  EXPECT_EQ(keys.answers.size(), 1u);

  const Example values = task({{"task", "needle"}, {"values", 4}}).make(t, 1, 5)[0];
  ASSERT_EQ(values.answers.size(), 4u);
  const std::string before = "The special magic numbers for ";
  ASSERT_EQ(values.question.rfind(before, 0), 0u);
  const std::string name = values.question.substr(before.size(), values.question.size() - before.size() - 5);
  for (const std::string& number : values.answers)
    EXPECT_EQ(positions(values.context, name + " is: " + number + ".").size(), 1u);

  const auto queries = task({{"task", "needle"}, {"keys", 6}, {"queries", 4}}).make(t, 10, 5);
  ASSERT_EQ(queries.size(), 10u);
  std::set<std::string> asked, contexts;
  for (const Example& e : queries) asked.insert(e.question), contexts.insert(e.context);
  EXPECT_EQ(asked.size(), 10u);
  EXPECT_EQ(contexts.size(), 3u);
  EXPECT_EQ(queries[0].context, queries[3].context);
}

TEST(SyntheticExamples, TextOfAFile) {
  TemporaryDirectory directory;
  std::ofstream(directory.path() / "essay.txt") << "One  thing is\nsure. \"Two, he said!\"\n<|endoftext|>\nAnd three";
  const auto e =
      task({{"task", "needle"}, {"haystack", "text"}, {"text", "essay.txt"}, {"length", 200}}, directory.path())
          .make(tokenizer("llama3"), 2, 1);
  EXPECT_NE(e[0].context.find(" \"Two, he said!\""), std::string::npos) << e[0].context;
  EXPECT_NE(e[0].context.find(" And three"), std::string::npos) << e[0].context;
  EXPECT_EQ(e[0].context.find("endoftext"), std::string::npos);
}

TEST(SyntheticExamples, AFunctionOfTheSeed) {
  const auto make = [](int64_t count, uint64_t seed) {
    return task({{"task", "needle"}, {"keys", 3}}).make(tokenizer("llama3"), count, seed);
  };
  EXPECT_EQ(make(5, 1)[4].context, make(9, 1)[4].context);
  EXPECT_NE(make(5, 1)[4].context, make(5, 2)[4].context);
}

TEST(SyntheticExamples, Refusals) {
  const auto& t = tokenizer("llama3");
  EXPECT_INPUT_ERROR(task({{"task", "needl"}}), "did you mean 'needle'");
  EXPECT_INPUT_ERROR(task({{"task", "needle"}, {"keys", 2}, {"queries", 3}}), "at most the number of keys 2");
  EXPECT_INPUT_ERROR(task({{"task", "needle"}, {"lenght", 3}}), "did you mean 'length'");
  EXPECT_INPUT_ERROR(task({{"task", "phone_book"}, {"keys", 3}}), "unknown key 'keys'");
  EXPECT_INPUT_ERROR(task({{"task", "needle"}, {"length", 0}}), "'length' must be 1 to");
  EXPECT_INPUT_ERROR(task({{"task", "needle"}, {"length", 30}}).make(t, 1, 1), "too short for 1 needles");
  EXPECT_INPUT_ERROR(task({{"task", "phone_book"}, {"length", 20}}).make(t, 1, 1), "too short for a phone book");
  EXPECT_INPUT_ERROR(task({{"task", "needle"}, {"haystack", "text"}, {"text", "none.txt"}}).make(t, 1, 1), "none.txt");
}

}  // namespace
}  // namespace oryx
