#pragma once

#include <cstdint>
#include <initializer_list>

namespace oryx {

// A small, seekable generator: the stream is a pure function of its key, the same on every machine. Anything random
// that must be reproducible after a resume is drawn from a Random keyed by (seed, purpose, step, sequence). SplitMix64
// (Steele, Lea, Flood 2014) both hashes the key and produces the stream.
class Random {
 public:
  Random(std::initializer_list<uint64_t> key) {
    for (uint64_t word : key) state_ = mix(state_ ^ mix(word + 0x9e3779b97f4a7c15ull));
  }
  uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15ull); }
  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // Uniform in [0, n), n > 0, without bias (Lemire 2019).
  uint64_t below(uint64_t n) {
    for (;;) {
      const auto product = static_cast<unsigned __int128>(next()) * n;
      if (static_cast<uint64_t>(product) >= -n % n) return static_cast<uint64_t>(product >> 64);
    }
  }

 private:
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  uint64_t state_ = 0x243f6a8885a308d3ull;
};

}  // namespace oryx
