#pragma once

#include <cstdint>
#include <initializer_list>

#include "base/random.h"

namespace oryx {

// A permutation of 0 ... n-1 that is a function of its key, one number at a time: a Feistel network on the next power
// of four, applied again while its result is no number below n (cycle walking; Black, Rogaway 2002). On average less
// than four times.
class Permutation {
 public:
  // n >= 1
  Permutation(uint64_t n, std::initializer_list<uint64_t> key) : n_(n) {
    while (half_bits_ < 32 && (n - 1) >> (2 * half_bits_) != 0) ++half_bits_;
    Random random(key);
    for (uint64_t& round : rounds_) round = random.next();
  }
  uint64_t operator()(uint64_t i) const {  // i < n
    do i = network(i);
    while (i >= n_);
    return i;
  }

 private:
  static constexpr int kRounds = 8;

  uint64_t network(uint64_t i) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = i >> half_bits_, right = i & mask;
    for (const uint64_t round : rounds_) {
      const uint64_t mixed = left ^ (Random{round, right}.next() & mask);
      left = right;
      right = mixed;
    }
    return left << half_bits_ | right;
  }

  uint64_t n_, rounds_[kRounds];
  int half_bits_ = 1;
};

}  // namespace oryx
