#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace oryx {

// Byte-pair encoding of one word (Sennrich et al. 2016, arXiv 1508.07909): of all neighbours that a merge is known for,
// those with the lowest rank, and of equal ones the leftmost, become one, until none is left.
class BytePairMerges {
 public:
  // Of equal pairs the last one counts.
  void add(int32_t left, int32_t right, int32_t rank, int32_t merged) {
    merges_.insert_or_assign(key(left, right), Merge{rank, merged});
  }
  void reserve(size_t merges) { merges_.reserve(merges); }
  // Merges `ids` in place; n log n for n ids.
  void apply(std::vector<int32_t>& ids) const;

 private:
  struct Merge {
    int32_t rank, merged;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  struct Hash {
    size_t operator()(uint64_t key) const { return (key ^ key >> 29) * 0x9e3779b97f4a7c15ull >> 7; }
  };
  const Merge* find(int32_t left, int32_t right) const {
    const auto found = merges_.find(key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }

  std::unordered_map<uint64_t, Merge, Hash> merges_;
};

}  // namespace oryx
