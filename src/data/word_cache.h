#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace oryx {

// The token ids of words met before. Bounded: it starts again when it is full, for nearly all of a text is its most
// frequent words, which are soon back.
class WordCache {
 public:
  // Appends the word's ids and returns true when it is known.
  bool append(std::string_view word, std::vector<int32_t>& ids) const {
    const auto found = words_.find(word);
    if (found == words_.end()) return false;
    const auto begin = ids_.begin() + found->second.begin;
    ids.insert(ids.end(), begin, begin + found->second.count);
    return true;
  }

  void add(std::string_view word, std::span<const int32_t> ids) {
    if (word.size() > kLongestWord) return;
    if (words_.size() >= kMaxWords) {
      words_.clear();
      ids_.clear();
    }
    words_.emplace(word, Range{static_cast<uint32_t>(ids_.size()), static_cast<uint32_t>(ids.size())});
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }

 private:
  static constexpr size_t kLongestWord = 64, kMaxWords = size_t{1} << 18;
  struct Range {
    uint32_t begin, count;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const { return std::hash<std::string_view>{}(word); }
  };

  std::unordered_map<std::string, Range, Hash, std::equal_to<>> words_;
  std::vector<int32_t> ids_;
};

}  // namespace oryx
