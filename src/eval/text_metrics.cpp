#include "eval/text_metrics.h"

#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <map>

#include "base/text.h"

namespace oryx {
namespace {

std::string lower(std::string_view text) {
  std::string out;
  icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())))
      .toLower()
      .toUTF8String(out);
  return out;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const std::string small = lower(text);
  const auto end_word = [&] {
    if (!word.empty() && word != "a" && word != "an" && word != "the") words.push_back(word);
    word.clear();
  };
  for (const char c : small) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && std::ispunct(byte) != 0) continue;
    if (byte < 0x80 && std::isspace(byte) != 0)
      end_word();
    else
      word += c;
  }
  end_word();
  return words;
}

double f1_of(const std::vector<std::string>& guess, const std::vector<std::string>& answer) {
  if (guess.empty() || answer.empty()) return guess.empty() == answer.empty() ? 1 : 0;
  std::map<std::string, int> left;
  for (const std::string& word : answer) ++left[word];
  int common = 0;
  for (const std::string& word : guess) common += left[word]-- > 0 ? 1 : 0;
  return 2.0 * common / static_cast<double>(guess.size() + answer.size());
}

}  // namespace

double found_answers(std::string_view text, const std::vector<std::string>& answers) {
  const std::string small = lower(text);
  const auto found = std::ranges::count_if(
      answers, [&](const std::string& a) { return small.find(lower(trim(a))) != std::string::npos; });
  return static_cast<double>(found) / static_cast<double>(answers.size());
}

bool contains_answer(std::string_view text, const std::vector<std::string>& answers) {
  return found_answers(text, answers) > 0;
}

std::string normalized_answer(std::string_view text) {
  std::string out;
  for (const std::string& word : words_of(text)) out += (out.empty() ? "" : " ") + word;
  return out;
}

bool exact_match(std::string_view text, const std::vector<std::string>& answers) {
  const std::string guess = normalized_answer(text);
  return std::ranges::any_of(answers, [&](const std::string& a) { return normalized_answer(a) == guess; });
}

double word_f1(std::string_view text, const std::vector<std::string>& answers) {
  const auto guess = words_of(text);
  double best = 0;
  for (const std::string& answer : answers) best = std::max(best, f1_of(guess, words_of(answer)));
  return best;
}

int64_t count_characters(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

int64_t count_words(std::string_view text) {
  const icu::UnicodeString wide =
      icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
  int64_t words = 1;
  bool in_space = false;
  for (int32_t i = 0; i < wide.length(); ++i) {
    const bool space = u_isUWhiteSpace(wide[i]) != 0 || (wide[i] >= 0x1c && wide[i] <= 0x1f);
    words += space && !in_space ? 1 : 0;
    in_space = space;
  }
  return words;
}

std::vector<std::string> split_articles(std::string_view text) {
  std::vector<std::string> articles;
  std::string article;
  const auto end_article = [&] {
    if (!trim(article).empty()) articles.push_back(article);
    article.clear();
  };
  for (bool first = true;; first = false) {
    const size_t stop = text.find('\n');
    const std::string_view line = text.substr(0, stop), core = trim(line);
    // One "=" on either side; a section's heading has two or more.
    if (core.starts_with("= ") && core.ends_with(" =") && !core.starts_with("= =")) {
      end_article();
    } else if (!first) {
      article += '\n';
    }
    article += line;
    if (stop == std::string_view::npos) break;
    text.remove_prefix(stop + 1);
  }
  end_article();
  return articles;
}

}  // namespace oryx
