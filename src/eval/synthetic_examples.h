#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/tokenizer.h"
#include "eval/example.h"

namespace oryx {

// Retrieval from texts that are made, of any length:
//   needle      RULER's needle in a haystack (Hsieh et al. 2024, arXiv 2404.06654): sentences that state the numbers of
//               names, hidden at random places. Single: one name; multi_key: `keys` names, of which one is asked
//               for; multi_value: `values` numbers of one name, all asked for; multi_query: `queries` of the names.
//   phone_book  lines of names and numbers that fill the text (Jelassi et al. 2024, arXiv 2402.01032)
struct SyntheticExamples {
  std::string kind = "needle";
  std::string haystack = "sentences";  // needle: "sentences" (five, repeated) | "needles" (of other names) | "text"
  std::filesystem::path text;          // haystack "text": a text file, begun at a random sentence
  int64_t keys = 1, values = 1, queries = 1;
  int64_t length = 1024;   // tokens of context, question and answer, at most; short of it by less than a sentence
  int64_t examples = 100;  // unless the caller wants another number

  // The members of a task's table [synthetic], the kind under "task"; `text` is relative to `directory`. InputError
  // that begins with `where`.
  static SyntheticExamples from_json(const Json& table, const std::string& where,
                                     const std::filesystem::path& directory);

  // `count` examples, a function of the arguments alone. Each text gives `queries` of them, one after another, so that
  // their mean is the part of the queries that were answered. A line end separates context and question, a space
  // question and answer. `answers` are the number, or all of multi_value. Fields: "depth", where in the context (0 to
  // 1) the first of them is stated, and "tokens". InputError when the length is too short.
  std::vector<Example> make(const Tokenizer& tokenizer, int64_t count, uint64_t seed) const;
};

}  // namespace oryx
