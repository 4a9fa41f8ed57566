#include "data/text_source.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "expect_error.h"

namespace oryx {
namespace {

constexpr int32_t kEos = 1;

// Documents whose tokens tell where they are: 100 d + 2 + position, then eos.
std::shared_ptr<const TokenCorpus> numbered(const std::vector<int>& lengths) {
  std::vector<std::vector<int32_t>> documents;
  for (size_t d = 0; d < lengths.size(); ++d) {
    std::vector<int32_t> document(lengths[d]);
    std::iota(document.begin(), document.end(), static_cast<int32_t>(100 * d + 2));
    document.push_back(kEos);
    documents.push_back(document);
  }
  return std::make_shared<const TokenCorpus>(TokenCorpus::from_documents(documents, 100'000, kEos));
}

// A pseudo-random corpus of `n` documents, and the inputs it holds.
std::shared_ptr<const TokenCorpus> ragged(int n) {
  std::vector<int> lengths;
  for (int i = 0; i < n; ++i) lengths.push_back(1 + i * 37 % 83);
  return numbered(lengths);
}

// Every target follows its input within one document, sequences are contiguous, and none is longer than the context.
void check_sequences(const Batch& batch, const TokenCorpus& corpus, int64_t context) {
  ASSERT_EQ(batch.tokens.size(), batch.targets.size());
  ASSERT_GE(batch.cu_seqlens.size(), 2u);
  EXPECT_EQ(batch.cu_seqlens.front(), 0);
  EXPECT_EQ(batch.cu_seqlens.back(), static_cast<int64_t>(batch.tokens.size()));
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int begin = batch.cu_seqlens[s], end = batch.cu_seqlens[s + 1];
    ASSERT_GT(end, begin);
    ASSERT_LE(end - begin, context);
    for (int i = begin; i < end; ++i) {
      const int64_t token = batch.tokens[i], document = (token - 2) / 100, position = (token - 2) % 100;
      EXPECT_EQ(document, (batch.tokens[begin] - 2) / 100) << "a sequence reaches into another document";
      if (i > begin) {
        EXPECT_EQ(token, batch.tokens[i - 1] + 1);
      }
      const int64_t length = corpus.documents()[document].length;
      EXPECT_EQ(batch.targets[i], position + 2 < length ? token + 1 : kEos);
    }
  }
}

TEST(EpochOrder, IsAPermutationOfItsOwnForEachEpochAndSeed) {
  for (const int64_t n : {1, 2, 3, 10, 1000}) {
    std::set<std::vector<uint32_t>> orders;
    for (const uint64_t seed : {0, 1}) {
      for (const int64_t epoch : {0, 1, 2}) {
        auto order = epoch_order(n, seed, epoch);
        EXPECT_EQ(order, epoch_order(n, seed, epoch));
        orders.insert(order);
        std::sort(order.begin(), order.end());
        std::vector<uint32_t> all(n);
        std::iota(all.begin(), all.end(), 0u);
        EXPECT_EQ(order, all);
      }
    }
    if (n >= 10) {
      EXPECT_EQ(orders.size(), 6u);
    }
  }
}

TEST(EpochOrder, IsUniform) {
  int counts[3][3] = {};
  constexpr int kEpochs = 3000;
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const auto order = epoch_order(3, 5, epoch);
    for (int i = 0; i < 3; ++i) ++counts[i][order[i]];
  }
  // Binomial(3000, 1/3): standard deviation 25.8.
  for (const auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, kEpochs / 3, 5 * 25.8);
  }
}

TEST(CutIntoPieces, ByHand) {
  const auto corpus = numbered({5, 1, 4});
  std::vector<std::pair<int64_t, int64_t>> pieces;
  for (const Piece& piece : cut_into_pieces(*corpus, 2)) pieces.emplace_back(piece.begin, piece.length);
  EXPECT_EQ(pieces, (std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {2, 2}, {4, 1}, {6, 1}, {8, 2}, {10, 2}}));
}

TEST(TextSource, FillsBatchesWithWholePiecesInTheEpochsOrder) {
  const auto corpus = numbered({5, 1, 4});
  const TextSource source(corpus, 3, 4, 7);
  // Pieces: 0 = tokens 2 3 4, 1 = 5 6, 2 = 102, 3 = 202 203 204, 4 = 205. The first three batches are the epoch's 10
  // inputs and 2 of the next epoch, in the orders of both.
  const std::vector<std::vector<int64_t>> pieces{{2, 3, 4}, {5, 6}, {102}, {202, 203, 204}, {205}};
  std::vector<int64_t> stream;
  for (const int epoch : {0, 1}) {
    for (const uint32_t index : epoch_order(5, 7, epoch))
      stream.insert(stream.end(), pieces[index].begin(), pieces[index].end());
  }
  for (int step = 0; step < 5; ++step) {
    const Batch batch = source.batch(step);
    EXPECT_EQ(batch.tokens, std::vector<int64_t>(stream.begin() + 4 * step, stream.begin() + 4 * step + 4));
    check_sequences(batch, *corpus, 3);
  }
}

TEST(TextSource, UsesEveryInputOnceInEachEpoch) {
  const auto corpus = ragged(61);
  const int64_t inputs = corpus->inputs();
  for (const int64_t batch_tokens : {1, 7, 64, 5000}) {
    const TextSource source(corpus, 16, batch_tokens, 3);
    EXPECT_EQ(source.epoch_tokens(), inputs);
    std::vector<int64_t> seen;
    for (int64_t step = 0; static_cast<int64_t>(seen.size()) < 3 * inputs; ++step) {
      const Batch batch = source.batch(step);
      ASSERT_EQ(static_cast<int64_t>(batch.tokens.size()), batch_tokens);
      EXPECT_EQ(batch.target_count(), batch_tokens);
      check_sequences(batch, *corpus, 16);
      seen.insert(seen.end(), batch.tokens.begin(), batch.tokens.end());
    }
    std::vector<int64_t> first(seen.begin(), seen.begin() + inputs),
        second(seen.begin() + inputs, seen.begin() + 2 * inputs);
    EXPECT_NE(first, second);
    for (auto* epoch : {&first, &second}) {
      std::sort(epoch->begin(), epoch->end());
      EXPECT_TRUE(std::adjacent_find(epoch->begin(), epoch->end()) == epoch->end());
    }
    EXPECT_EQ(first, second);
  }
}

TEST(TextSource, SeeksToAnyStep) {
  const auto corpus = ragged(40);
  const TextSource forward(corpus, 32, 50, 9), backward(corpus, 32, 50, 9), other(corpus, 32, 50, 10);
  std::vector<Batch> batches;
  for (int64_t step = 0; step < 200; ++step) batches.push_back(forward.batch(step));
  int same = 0;
  for (int64_t step = 199; step >= 0; --step) {
    const Batch batch = backward.batch(step);
    EXPECT_EQ(batch.tokens, batches[step].tokens);
    EXPECT_EQ(batch.targets, batches[step].targets);
    EXPECT_EQ(batch.cu_seqlens, batches[step].cu_seqlens);
    same += other.batch(step).tokens == batch.tokens;
  }
  EXPECT_LT(same, 5);
}

// Fails when the stream changes, and with it what a resumed run would see.
TEST(TextSource, StreamIsFixed) {
  const TextSource source(ragged(10), 8, 12, 1);
  const Batch batch = source.batch(3);
  EXPECT_EQ(batch.tokens, (std::vector<int64_t>{129, 130, 131, 132, 133, 510, 511, 512, 513, 514, 515, 516}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 5, 12}));
}

TEST(TextSource, RefusesBadSizes) {
  const auto corpus = numbered({5});
  EXPECT_INPUT_ERROR(TextSource(corpus, 0, 4, 1), "context must be 1 to");
  EXPECT_INPUT_ERROR(TextSource(corpus, 4, 0, 1), "batch_tokens must be 1 to");
  EXPECT_INPUT_ERROR(TextSource(corpus, 4, 4, 1).batch(-1), "must not be negative");
  EXPECT_INPUT_ERROR(TokenCorpus::from_documents({}, 10, kEos), "no document");
  EXPECT_INPUT_ERROR(TokenCorpus::from_documents({{kEos}, {kEos}}, 10, kEos), "no document");
  EXPECT_INPUT_ERROR(TokenCorpus::from_documents({{3, 10, kEos}}, 10, kEos), "token id 10");
}

TEST(TextWindows, CoverTheCorpusInOrder) {
  const auto corpus = ragged(23);
  for (const int64_t batch_tokens : {1, 20, 64, 100'000}) {
    const TextWindows windows(corpus, 16, batch_tokens);
    std::vector<int64_t> seen;
    for (int64_t i = 0; i < windows.batches(); ++i) {
      const Batch batch = windows.batch(i);
      check_sequences(batch, *corpus, 16);
      EXPECT_LE(static_cast<int64_t>(batch.tokens.size()), std::max<int64_t>(batch_tokens, 16));
      seen.insert(seen.end(), batch.tokens.begin(), batch.tokens.end());
    }
    EXPECT_EQ(windows.inputs(), corpus->inputs());
    EXPECT_EQ(static_cast<int64_t>(seen.size()), corpus->inputs());
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
    EXPECT_TRUE(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
    EXPECT_INPUT_ERROR(windows.batch(windows.batches()), "validation batches");
  }
}

TEST(TextWindows, StopAfterEnough) {
  const auto corpus = numbered({20, 20, 20});
  const TextWindows windows(corpus, 10, 20, 30);
  EXPECT_EQ(windows.batches(), 2);
  EXPECT_EQ(windows.inputs(), 40);
  EXPECT_EQ(windows.batch(1).tokens.front(), 102);
}

}  // namespace
}  // namespace oryx
