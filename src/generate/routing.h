#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "model/schedule.h"

namespace oryx {

// How much a policy may spend: attention for about `fraction` of the tokens, decided for `chunk` tokens at a time.
struct RoutingBudget {
  double fraction = 0;
  int64_t chunk = 16;
};

// The modes of tokens that are known as a whole: attention for the chunks of [0, scores.size()) with the highest mean
// score, as many as come nearest to the budget; of equal ones the later. A decision depends on all scores.
std::vector<Span> route_known(std::span<const double> scores, RoutingBudget budget);

// The modes of tokens that come one after another, none depending on a later token: at a chunk's first token its score
// is compared with those of the last kWindow tokens. Attention serves the chunk when fewer than a part p of them are
// higher, p = fraction + (tokens in attention that are still due) / kWindow: scores that drift still meet the fraction
// in the long run, and a question that stands out at the end of a long text may take up to fraction * kWindow tokens at
// once.
// Tokens whose predictions nobody uses, as those of a prompt before its last, spend nothing: what they save goes to the
// first chunks after them that expect any gain, since only these are sure to come.
class CausalRouter {
 public:
  static constexpr int64_t kWindow = 1024;  // tokens

  explicit CausalRouter(RoutingBudget budget) : budget_(budget) {}
  // Tokens before the first one to be decided, and the modes they were given. A chunk begins after them.
  void observe(std::span<const double> scores, std::span<const Span> spans);
  // Unused tokens before the first one to be decided: all of them in recurrence.
  void save(std::span<const double> scores);
  Mode next(double score);
  // For a token of which nothing is known yet: the mode that next() gives if a gain is expected while anything is left
  // of what was saved, otherwise recurrence.
  Mode next_unknown();

 private:
  void remember(double score);
  void advance();  // past a token of mode_

  RoutingBudget budget_;
  std::deque<double> recent_;
  std::vector<double> sorted_;  // the recent ones
  double due_ = 0;              // tokens
  double saved_ = 0;            // tokens
  int64_t in_chunk_ = 0;
  Mode mode_ = Mode::recurrent;
};

}  // namespace oryx
