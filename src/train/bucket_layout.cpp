#include "train/bucket_layout.h"

#include <algorithm>
#include <numeric>

namespace oryx {
namespace {

constexpr int64_t kBuckets = 16;
constexpr int64_t kAlignment = 16;  // elements: weights and slices begin at cache lines

int64_t round_up(int64_t x, int64_t unit) {
  return (x + unit - 1) / unit * unit;
}

}  // namespace

BucketLayout::Entry part_in_slice(const BucketLayout& bucket, const BucketLayout::Entry& entry, int ranks, int rank) {
  const int64_t slice = bucket.size / ranks;
  const int64_t begin = std::clamp(entry.begin, rank * slice, (rank + 1) * slice);
  return {entry.weight, begin, std::clamp(entry.end, begin, (rank + 1) * slice)};
}

std::vector<BucketLayout> lay_out_buckets(const std::vector<int64_t>& sizes, const std::vector<bool>& kinds,
                                          int ranks) {
  const int64_t enough = std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) / kBuckets;
  std::vector<BucketLayout> done;
  BucketLayout open[2];
  const auto close = [&](BucketLayout& bucket) {
    bucket.size = round_up(bucket.size, ranks * kAlignment);
    done.push_back(std::move(bucket));
    bucket = {};
  };
  for (size_t i = sizes.size(); i-- > 0;) {
    BucketLayout& bucket = open[kinds[i]];
    // A weight that is large by itself does not hold back those before it.
    if (!bucket.entries.empty() && bucket.size + sizes[i] > 2 * enough) close(bucket);
    bucket.entries.push_back({i, bucket.size, bucket.size + sizes[i]});
    bucket.size = round_up(bucket.size + sizes[i], kAlignment);
    if (bucket.size >= enough) close(bucket);
  }
  for (BucketLayout& bucket : open)
    if (!bucket.entries.empty()) close(bucket);
  return done;
}

}  // namespace oryx
