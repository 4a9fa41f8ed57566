#include "data/facts.h"

#include <fmt/format.h>

#include <iterator>

namespace oryx {
namespace {

std::string draw_name(Random& random) {
  constexpr const char* kSyllables[] = {"ka",  "lo",  "mi",  "ren", "tu",  "ven", "dor", "bel",
                                        "sha", "qui", "ing", "est", "pra", "gon", "ul",  "fa"};
  const auto word = [&](int syllables) {
    std::string text;
    for (int i = 0; i < syllables; ++i) text += kSyllables[random.below(std::size(kSyllables))];
    text[0] = static_cast<char>(text[0] - 'a' + 'A');
    return text;
  };
  const std::string first = word(2);
  return first + " " + word(3);
}

}  // namespace

Fact Facts::draw() {
  std::string name;
  do name = draw_name(random_);
  while (!used_.insert(name).second);
  return {name, draw_number()};
}

std::string Facts::draw_number() {
  return std::to_string(1'000'000 + random_.below(9'000'000));
}

std::string statement(std::string_view kind, const Fact& fact) {
  return kind == "needle" ? fmt::format(" One of the special magic numbers for {} is: {}.", fact.name, fact.number)
                          : fmt::format("\n{}: {}", fact.name, fact.number);
}

std::string question(std::string_view kind, std::string_view name) {
  return kind == "needle" ? fmt::format("The special magic number for {} is:", name)
                          : fmt::format("The number of {} is:", name);
}

}  // namespace oryx
