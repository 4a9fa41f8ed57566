#pragma once

#include <set>
#include <string>
#include <string_view>

#include "base/random.h"

namespace oryx {

// A fact that is stated somewhere in a text and asked for at its end. Training ("needle", "phone_book" of
// SyntheticTask) and evaluation (eval/synthetic_examples.h) have the same wording.
struct Fact {
  std::string name, number;  // seven digits
};

// Facts about different names that nobody has, so that nothing can be known of them but what the text says.
class Facts {
 public:
  explicit Facts(Random& random) : random_(random) {}
  Fact draw();
  std::string draw_number();

 private:
  Random& random_;
  std::set<std::string> used_;
};

inline constexpr std::string_view kPhoneBookHeading = "Phone book:";
// What needles are hidden in, again and again in this order.
inline constexpr std::string_view kFiller[] = {" The grass is green.", " The sky is blue.", " The sun is yellow.",
                                               " Here we go.", " There and back again."};

// `kind` is "needle" or "phone_book". The question stands on a line of its own, and the
// number after it and a space.
std::string statement(std::string_view kind, const Fact& fact);
std::string question(std::string_view kind, std::string_view name);

}  // namespace oryx
