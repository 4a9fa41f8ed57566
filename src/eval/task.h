#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "data/regex_replacer.h"
#include "eval/example.h"

namespace oryx {

enum class TaskKind {
  multiple_choice,  // the choice with the largest log-likelihood: acc; per character: acc_norm
  completion,       // the answer's log-likelihood, and whether it is what greedy decoding gives: acc, perplexity
  retrieval,        // greedy decoding, compared with the answers: contains, exact_match, f1
  synthetic,        // retrieval from examples that are made, not read
  perplexity,       // log-likelihood of whole documents: word_perplexity, byte_perplexity, bits_per_byte
  repeated_text,    // nats per token of a text and of its repetition right after it: first_nats, repeated_nats
  position_loss     // nats per token by position
};
const char* kind_name(TaskKind kind);

// One prompt. The tokens of `question` and of what follows are those that `question` schedules put in attention.
struct Prompt {
  std::string context, question, continuation;
  std::string before() const { return context + question; }
};

// A task as its TOML file describes it (tasks/README.md). Templates name members of an example in braces: {context},
// {question}, {choice}, {answer}, {continuation}, {title}, ...
struct Task {
  std::string name;  // the file's
  TaskKind kind = TaskKind::multiple_choice;
  std::string group, about;
  std::filesystem::path data;        // a sample that the project ships; empty for synthetic tasks
  std::vector<std::string> metrics;  // the first one is the task's accuracy, if it has one
  std::string description;           // before everything
  std::string context, question, answer;
  std::string shot_separator = "\n\n";
  std::vector<std::string> until;            // generation ends before any of these
  int64_t max_tokens = 0;                    // generated at most
  std::vector<RegexReplacer> substitutions;  // applied in order to each member of an example
  Json synthetic;                            // what the maker of a synthetic task takes

  bool scores_choices() const { return kind == TaskKind::multiple_choice; }
  bool generates() const { return kind == TaskKind::retrieval || kind == TaskKind::synthetic; }
  bool reads_text() const { return kind >= TaskKind::perplexity; }  // a text file instead of examples

  // With choice (-1: the right one; for tasks without choices it is not looked at). InputError that names the example
  // when a template asks for what it does not have.
  Prompt prompt(const Example& example, int64_t choice = -1) const;
  // Description and answered examples, ready to stand before a prompt's context.
  std::string header(const std::vector<const Example*>& shots) const;
  std::string substituted(std::string text) const;
  // InputError unless the example has what this kind of task scores.
  void check(const Example& example) const;
};

// InputErrors name the file and the key.
Task load_task(const std::filesystem::path& path);

// The tasks that `names` name: tasks or groups among the *.toml files of `directory`, or paths of TOML files.
// InputError with a suggestion for an unknown name.
std::vector<Task> find_tasks(const std::vector<std::string>& names, const std::filesystem::path& directory);
std::vector<Task> all_tasks(const std::filesystem::path& directory);  // by group, then by name

}  // namespace oryx
