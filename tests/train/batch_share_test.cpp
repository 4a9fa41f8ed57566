#include "train/batch_share.h"

#include <gtest/gtest.h>

#include "expect_error.h"

namespace oryx {
namespace {

// Blocks of 8 tokens, each of two sequences; tokens count up over all batches.
class Counting : public BatchSource {
 public:
  explicit Counting(int64_t tokens) : tokens_(tokens) {}
  Batch batch(int64_t step) const override {
    Batch batch;
    for (int64_t t = 0; t < tokens_; ++t) {
      if (t % 8 == 0 || t % 8 == 3) batch.cu_seqlens.push_back(static_cast<int32_t>(t));
      batch.tokens.push_back(step * tokens_ + t);
      batch.targets.push_back(t);
    }
    batch.cu_seqlens.push_back(static_cast<int32_t>(tokens_));
    return batch;
  }
  int64_t batch_tokens() const override { return tokens_; }
  int64_t vocab_size() const override { return 1 << 20; }
  int64_t max_length() const override { return 5; }
  int64_t epoch_tokens() const override { return 0; }

 private:
  int64_t tokens_;
};

TEST(BatchShare, RanksTakeTheBatchInOrder) {
  struct Case {
    int64_t micro;
    int ranks;
  };
  for (const auto& [micro, ranks] : {Case{96, 1}, {96, 3}, {24, 2}, {24, 4}, {24, 12}, {48, 4}}) {
    const Counting source(micro);
    int64_t next = 96 * 5;  // tokens of step 5
    int64_t sequences = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const BatchShare share(96, micro, 8, rank, ranks);
      EXPECT_EQ(share.count() * share.micro_batch_tokens(), 96 / ranks);
      for (const Batch& batch : share.batches(source, 5)) {
        for (const int64_t token : batch.tokens) EXPECT_EQ(token, next++);
        EXPECT_EQ(batch.tokens.size(), batch.targets.size());
        EXPECT_EQ(batch.cu_seqlens.front(), 0);
        EXPECT_EQ(batch.cu_seqlens.back(), static_cast<int32_t>(batch.tokens.size()));
        sequences += batch.sequences();
      }
    }
    EXPECT_EQ(next, 96 * 6);
    EXPECT_EQ(sequences, 24);
  }
}

TEST(BatchShare, SizesThatDoNotDivide) {
  EXPECT_INPUT_ERROR(BatchShare(96, 24, 8, 0, 3), "batch_tokens = 96 with micro_batch_tokens = 32 would do");
  EXPECT_INPUT_ERROR(BatchShare(96, 96, 8, 0, 5), "batch_tokens = 120 with micro_batch_tokens = 24 would do");
  EXPECT_THROW(cut_batch(Counting(96).batch(0), 0, 4), std::logic_error);
}

}  // namespace
}  // namespace oryx
