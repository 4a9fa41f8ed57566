#pragma once

#include <cstdint>
#include <vector>

namespace oryx {

// Tokens [begin, end) of a sequence, read as a sequence of their own, of which [first_scored, end) are scored.
struct TokenWindow {
  int64_t begin, end, first_scored;
};

// Windows that score tokens [first_scored, length) of a sequence, 1 <= first_scored < length, each token once and from
// at most `max_length` >= 1 others, as lm-evaluation-harness cuts sequences that are too long. Where all scored tokens
// fit into one window, they have as much context as does; otherwise the first window has one token of context, and
// the last one is full, so that some of its tokens are context that was scored before.
std::vector<TokenWindow> token_windows(int64_t length, int64_t first_scored, int64_t max_length);

}  // namespace oryx
