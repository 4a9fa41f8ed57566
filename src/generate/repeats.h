#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace oryx {

// How the tokens of a growing sequence repeat what stands before them. Where they do, attention can look up how the
// text went on then; most of what it is ahead of a recurrence lies there (Arora et al. 2023, arXiv 2312.04927). Exact
// but for collisions of 64-bit hashes, and a few look-ups a token.
class Repeats {
 public:
  // Of each token: for n from 1 to 4, 1 if the last n tokens stood together before and 0 if not; then log2(1 + x) / 8
  // of its earlier occurrences, of the distance to the last one and of the first one's position (0 where there is
  // none), and of its own position.
  static constexpr int64_t kFeatures = 8;

  // Appends those of the next tokens, each of which sees itself and what was read before it.
  void read(std::span<const int64_t> tokens, std::vector<float>& features);

 private:
  static constexpr size_t kLongest = 4;
  struct Occurrences {
    int64_t count = 0, first = 0, last = 0;
  };

  std::unordered_map<int64_t, Occurrences> tokens_;
  std::array<std::unordered_set<uint64_t>, kLongest - 1> runs_;  // hashes of 2, 3, 4 tokens in a row
  std::deque<int64_t> recent_;
  int64_t length_ = 0;
};

}  // namespace oryx
