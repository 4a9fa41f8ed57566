#include "generate/repeats.h"

#include <cmath>

#include "base/random.h"

namespace oryx {
namespace {

float scaled(int64_t x) {
  return std::log2(1.0F + static_cast<float>(x)) / 8;
}

}  // namespace

void Repeats::read(std::span<const int64_t> tokens, std::vector<float>& features) {
  for (const int64_t token : tokens) {
    recent_.push_front(token);
    if (recent_.size() > kLongest) recent_.pop_back();
    Occurrences& seen = tokens_[token];
    features.push_back(seen.count > 0 ? 1 : 0);
    uint64_t hash = static_cast<uint64_t>(token);
    for (size_t n = 2; n <= kLongest; ++n) {
      bool again = false;
      if (n <= recent_.size()) {
        hash = Random{hash, static_cast<uint64_t>(recent_[n - 1])}.next();
        again = !runs_[n - 2].insert(hash).second;
      }
      features.push_back(again ? 1 : 0);
    }
    features.push_back(scaled(seen.count));
    features.push_back(seen.count > 0 ? scaled(length_ - seen.last) : 0);
    features.push_back(seen.count > 0 ? scaled(seen.first) : 0);
    features.push_back(scaled(length_));
    if (seen.count++ == 0) seen.first = length_;
    seen.last = length_++;
  }
}

}  // namespace oryx
