#include "train/bucket_layout.h"

#include <gtest/gtest.h>

namespace oryx {
namespace {

TEST(BucketLayout, EveryElementBelongsToOneRank) {
  const std::vector<int64_t> sizes{5000, 3, 700, 1, 64, 900, 33, 2048, 17, 4000};
  std::vector<bool> kinds(sizes.size());
  for (size_t i = 0; i < kinds.size(); i += 3) kinds[i] = true;
  for (int ranks : {1, 2, 3, 8, 1000}) {
    std::vector<int> found(sizes.size());
    for (const BucketLayout& bucket : lay_out_buckets(sizes, kinds, ranks)) {
      EXPECT_EQ(bucket.size % (16 * ranks), 0);
      int64_t before = 0;
      for (const auto& entry : bucket.entries) {
        EXPECT_EQ(kinds[entry.weight], kinds[bucket.entries.front().weight]);
        EXPECT_EQ(entry.begin % 16, 0);
        EXPECT_GE(entry.begin, before);
        EXPECT_LE(entry.end, bucket.size);
        before = entry.end;
        int64_t at = entry.begin;
        for (int r = 0; r < ranks; ++r) {
          const auto part = part_in_slice(bucket, entry, ranks, r);
          if (part.begin == part.end) continue;
          EXPECT_EQ(part.begin, at);  // pieces of rising ranks make up the weight
          EXPECT_GE(part.begin, r * bucket.size / ranks);
          EXPECT_LE(part.end, (r + 1) * bucket.size / ranks);
          at = part.end;
        }
        EXPECT_EQ(at, entry.end);
        found[entry.weight] += 1;
        EXPECT_EQ(entry.end - entry.begin, sizes[entry.weight]);
      }
    }
    EXPECT_EQ(found, std::vector<int>(sizes.size(), 1));
  }
}

TEST(BucketLayout, AboutSixteenBucketsFromTheLastWeightOn) {
  const std::vector<int64_t> sizes(100, 1000);
  const auto buckets = lay_out_buckets(sizes, std::vector<bool>(100), 4);
  EXPECT_GE(buckets.size(), 12u);
  EXPECT_LE(buckets.size(), 20u);
  size_t next = 99;
  for (const BucketLayout& bucket : buckets)
    for (const auto& entry : bucket.entries) EXPECT_EQ(entry.weight, next--);
}

}  // namespace
}  // namespace oryx
