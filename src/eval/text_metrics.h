#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace oryx {

// How a generated text compares with the answers that count as right; each the best over the answers.

// An answer occurs in the text, case ignored.
bool contains_answer(std::string_view text, const std::vector<std::string>& answers);
// The part of the answers that occur in it, as RULER scores several values.
double found_answers(std::string_view text, const std::vector<std::string>& answers);
// After normalisation as in SQuAD's evaluation (Rajpurkar et al. 2016, arXiv 1606.05250): lower case, without ASCII
// punctuation and the articles a, an, the, words joined by one space.
std::string normalized_answer(std::string_view text);
bool exact_match(std::string_view text, const std::vector<std::string>& answers);
// Harmonic mean of precision and recall of the words of the normalised texts, counted as bags.
double word_f1(std::string_view text, const std::vector<std::string>& answers);

// For acc_norm: characters, not bytes.
int64_t count_characters(std::string_view text);
// The pieces between runs of white space, empty ones at the ends included, as lm-evaluation-harness counts words.
int64_t count_words(std::string_view text);
// wikitext's articles, each from its line " = Title = " on.
std::vector<std::string> split_articles(std::string_view text);

}  // namespace oryx
