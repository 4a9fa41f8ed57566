#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace oryx {

// Weights laid end to end in one buffer, whose equal slices belong to the ranks: slice r is [r, r + 1) * size / ranks.
struct BucketLayout {
  struct Entry {
    size_t weight;
    int64_t begin, end;  // elements of the buffer
  };
  std::vector<Entry> entries;
  int64_t size = 0;  // elements, what lies between and behind the weights included
};

// What of an entry lies in the slice of a rank, as elements of the buffer; begin = end when nothing does.
BucketLayout::Entry part_in_slice(const BucketLayout& bucket, const BucketLayout::Entry& entry, int ranks, int rank);

// Lays weights of `sizes` elements out in buckets, the last weight first, since the backward pass begins with it. There
// are about sixteen buckets, whatever the model: few enough for latency (docs/scaling.md), and little of the reduction
// is left when the backward pass ends. Weights of the two `kinds` share no bucket.
std::vector<BucketLayout> lay_out_buckets(const std::vector<int64_t>& sizes, const std::vector<bool>& kinds, int ranks);

}  // namespace oryx
