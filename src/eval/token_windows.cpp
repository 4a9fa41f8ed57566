#include "eval/token_windows.h"

#include <algorithm>

#include "base/error.h"

namespace oryx {

std::vector<TokenWindow> token_windows(int64_t length, int64_t first_scored, int64_t max_length) {
  require(first_scored >= 1 && first_scored < length && max_length >= 1,
          "windows need a token before those scored, and one to score");
  if (length - first_scored <= max_length)
    return {{std::max<int64_t>(0, length - max_length - 1), length, first_scored}};
  std::vector<TokenWindow> windows;
  for (int64_t next = first_scored; next < length;) {
    const int64_t end = std::min(next + max_length, length);
    windows.push_back({std::max(end - max_length - 1, first_scored - 1), end, next});
    next = end;
  }
  return windows;
}

}  // namespace oryx
