#include "eval/task.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/files.h"
#include "eval/estimate.h"
#include "eval/text_metrics.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

const fs::path kTasks = fs::path(ORYX_SOURCE_DIR) / "tasks";

class Files : public testing::Test {
 protected:
  fs::path file(const std::string& name, const std::string& text) const {
    write_file_atomically(directory_ / name, text);
    return directory_ / name;
  }
  TemporaryDirectory directory_;
};

Task task_named(const std::string& name) {
  return find_tasks({name}, kTasks).at(0);
}

Example example(const std::string& context, const std::string& question, std::vector<std::string> choices) {
  Example e;
  e.context = context, e.question = question, e.choices = std::move(choices), e.answer = 1;
  return e;
}

using Examples = Files;

TEST_F(Examples, AreReadLineByLine) {
  const auto examples = read_examples(file("a.jsonl",
                                           "{\"id\":\"q\",\"context\":\"c\u2028d\",\"choices\":[\"x\",\"y\"],"
                                           "\"answer\":1,\"uid\":\"u\"}\r\n\n"
                                           "{\"context\":\"\",\"question\":\"w\",\"answers\":[\"a\",\"b\"]}"));
  ASSERT_EQ(examples.size(), 2);
  EXPECT_EQ(examples[0].id, "q");
  EXPECT_EQ(examples[0].context, "c\u2028d");
  EXPECT_EQ(examples[0].answer, 1);
  EXPECT_EQ(examples[0].fields, (Json{{"uid", "u"}}));
  EXPECT_EQ(examples[1].id, "3");
  EXPECT_EQ(examples[1].answers, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(examples[1].where.ends_with("a.jsonl:3"));
}

TEST_F(Examples, ErrorsNameTheLineAndTheKey) {
  const auto bad = [&](const std::string& line, const std::vector<std::string>& words) {
    const auto path = file("a.jsonl", "{\"answers\":[\"a\"]}\n" + line + "\n");
    for (const std::string& word : words) EXPECT_INPUT_ERROR(read_examples(path), word);
  };
  bad("{", {"a.jsonl:2"});
  bad("[1]", {"a.jsonl:2", "object"});
  bad("{\"context\":1,\"answers\":[\"a\"]}", {"a.jsonl:2", "context"});
  bad("{\"context\":\"c\"}", {"a.jsonl:2", "answers"});
  bad("{\"answers\":[]}", {"a.jsonl:2", "empty"});
  bad("{\"answers\":[3]}", {"a.jsonl:2", "answers"});
  bad("{\"choices\":[\"a\"],\"answer\":0}", {"a.jsonl:2", "two"});
  bad("{\"choices\":[\"a\",\"b\"]}", {"a.jsonl:2", "answer"});
  bad("{\"choices\":[\"a\",\"b\"],\"answer\":2}", {"a.jsonl:2", "count from 0"});
  bad("{\"choices\":[\"a\",\"b\"],\"answer\":-1}", {"a.jsonl:2", "answer"});
  EXPECT_INPUT_ERROR(read_examples(file("empty.jsonl", "\n")), "no example");
  EXPECT_INPUT_ERROR(read_examples(directory_ / "none.jsonl"), "none.jsonl");
}

TEST(Tasks, HaveSamplesThatTheyCanScore) {
  for (const Task& t : all_tasks(kTasks)) {
    SCOPED_TRACE(t.name);
    EXPECT_FALSE(t.about.empty());
    EXPECT_FALSE(t.group.empty());
    if (t.data.empty() || t.reads_text()) continue;
    for (const Example& e : read_examples(t.data)) {
      t.check(e);
      EXPECT_FALSE(t.prompt(e).continuation.empty());
    }
  }
}

TEST(Tasks, PromptsOfTheHarness) {
  Prompt p = task_named("piqa").prompt(example("To boil water", "", {"freeze it", "heat it"}), 0);
  EXPECT_EQ(p.before(), "Question: To boil water\nAnswer:");
  EXPECT_EQ(p.continuation, " freeze it");
  p = task_named("hellaswag")
          .prompt(example(" How to [substeps] bake [title] Mix.  Then", "", {"x", "[step] go [title] on"}));
  EXPECT_EQ(p.before(), "How to bake. Mix. Then");
  EXPECT_EQ(p.continuation, "  go. on");  // the bracket goes after the spaces at the ends
  Example gap = example("Ann thanked Bea since", "", {"Ann", "Bea"});
  gap.continuation = "helped.";
  p = task_named("winogrande").prompt(gap, 0);
  EXPECT_EQ(p.before() + "|" + p.continuation, "Ann thanked Bea since Ann| helped.");
  p = task_named("blimp").prompt(example("", "", {"Bad.", "Good."}), 1);
  EXPECT_EQ(p.before() + "|" + p.continuation, "| Good.");
  Example fact;
  fact.context = "Area: 3\nCoast: 4", fact.question = "Coast", fact.answers = {"4"};
  p = task_named("factbook").prompt(fact);
  EXPECT_EQ(p.context, "Area: 3\nCoast: 4\n");
  EXPECT_EQ(p.question + "|" + p.continuation, "Coast:| 4");
}

TEST(Tasks, HeaderShowsDescriptionAndAnsweredExamples) {
  const Task t = task_named("nq_open");
  Example a, b;
  a.question = "who", a.answers = {"me", "I"}, b.question = "why", b.answers = {"so"};
  EXPECT_EQ(t.header({&a, &b}), "Answer these questions:\n\nQ: who?\nA: me\nQ: why?\nA: so\n");
}

TEST(Tasks, WikitextIsDetokenised) {
  const Task t = task_named("wikitext");
  EXPECT_EQ(t.substituted(" = A = \n \n He 's 1 @,@ 000 ( or so ) @-@ \" big \" . Ok ; N the girls ' = = B = = \n"),
            " = A =\n\nHe's 1,000 (or so)-\"big\". Ok; 1 the girls' == B ==\n");
}

TEST_F(Files, TaskErrorsNameTheFileAndTheKey) {
  const auto bad = [&](const std::string& text, const std::vector<std::string>& words) {
    const auto path = file("t.toml", text);
    for (const std::string& word : words) EXPECT_INPUT_ERROR(load_task(path), word);
  };
  bad("", {"t.toml", "kind"});
  bad("kind = 'multiple_choise'", {"multiple_choice"});
  bad("kind = 'completion'", {"answer"});
  bad("kind = 'retrieval'\nmetric = ['f1']", {"metric", "metrics"});
  bad("kind = 'retrieval'\nmetrics = ['f2']", {"f2", "'f1'"});
  bad("kind = 'retrieval'\nmetrics = []", {"empty"});
  bad("kind = 'retrieval'\nsubstitute = [['(', '']]", {"regular expression"});
  bad("kind = 'retrieval'\nsubstitute = ['a']", {"replacement"});
  bad("kind = 'retrieval'\n[prompt]\nmax_tokens = 0", {"max_tokens"});
  EXPECT_INPUT_ERROR(find_tasks({"helaswag"}, kTasks), "hellaswag");
  EXPECT_INPUT_ERROR(find_tasks({"x"}, directory_ / "none"), "none");
  const Task t = load_task(file("ok.toml", "kind = 'retrieval'\n[prompt]\ncontext = '{titel}'"));
  Example e;
  e.where = "a.jsonl:7", e.answers = {"x"};
  EXPECT_INPUT_ERROR(t.prompt(e), "a.jsonl:7");
  EXPECT_INPUT_ERROR(t.prompt(e), "titel");
  EXPECT_INPUT_ERROR(task_named("piqa").check(e), "choices");
}

TEST(Tasks, AGroupStandsForItsTasks) {
  const auto found = find_tasks({"language_modelling", "squad"}, kTasks);
  EXPECT_GE(found.size(), 10);
  EXPECT_EQ(found.back().name, "squad");
}

TEST(TextMetrics, Answers) {
  EXPECT_EQ(normalized_answer(" The  Queen's, an Élan!"), "queens élan");
  EXPECT_TRUE(exact_match("the eiffel tower.", {"x", "Eiffel Tower"}));
  EXPECT_FALSE(exact_match("Eiffel", {"Eiffel Tower"}));
  EXPECT_TRUE(contains_answer("It was ÉCLAIR time", {"éclair"}));
  EXPECT_FALSE(contains_answer("It was", {"was it"}));
  EXPECT_DOUBLE_EQ(found_answers("12 and 34", {"12", "34", "56"}), 2.0 / 3);
  EXPECT_DOUBLE_EQ(word_f1("in the house of cards", {"nothing", "house cards here"}),
                   2 * 0.5 * (2.0 / 3) / (0.5 + 2.0 / 3));
  EXPECT_DOUBLE_EQ(word_f1("a b b", {"b"}), 2.0 / 3);  // "a" is an article; one of two
  EXPECT_DOUBLE_EQ(word_f1("", {"b"}), 0);
}

TEST(TextMetrics, Counts) {
  EXPECT_EQ(count_characters("aé\U0001F434"), 3);
  EXPECT_EQ(count_words(" = A = \n b\u00a0c"), 6);  // an empty one before the first space
  EXPECT_EQ(count_words("x "), 2);
  const auto articles = split_articles("\n = One = \n a\n = = Part = = \n = Two = \nb\n");
  EXPECT_EQ(articles, (std::vector<std::string>{" = One = \n a\n = = Part = = ", " = Two = \nb\n"}));
}

TEST(Estimates, StandardErrors) {
  const Estimate mean = mean_of({1, 0, 0, 1, 1});
  EXPECT_DOUBLE_EQ(mean.value, 0.6);
  EXPECT_NEAR(mean.stderr_, std::sqrt(0.3 / 5), 1e-15);  // sample variance 5 * 0.24 / 4
  EXPECT_TRUE(std::isnan(mean_of({1}).stderr_));
  const Estimate ratio = ratio_of({2, 4, 7}, {1, 2, 3});
  EXPECT_DOUBLE_EQ(ratio.value, 13.0 / 6);
  EXPECT_NEAR(ratio.stderr_, std::sqrt(1.5 * (1.0 / 36 + 1.0 / 9 + 1.0 / 4)) / 6, 1e-15);
  EXPECT_DOUBLE_EQ(exp_of({2, 0.5}).stderr_, 0.5 * std::exp(2));
}

}  // namespace
}  // namespace oryx
