#include "data/block_source.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "data/mixture.h"
#include "data/permutation.h"
#include "data/text_windows.h"
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

// A pseudo-random corpus of `n` documents.
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
      if (batch.tokens[i] == kEos) {  // of the document that ends here
        EXPECT_EQ(i, end - 1);
        EXPECT_EQ(batch.targets[i], kIgnoredTarget);
        continue;
      }
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

TEST(Permutation, IsOneForEveryKeyAndSize) {
  for (const uint64_t n : {1, 2, 3, 4, 5, 10, 63, 64, 65, 1000, 4097}) {
    std::set<std::vector<uint64_t>> orders;
    for (const uint64_t seed : {0, 1}) {
      for (const uint64_t epoch : {0, 1, 2}) {
        const Permutation permutation(n, {seed, epoch});
        std::vector<uint64_t> order, all(n);
        for (uint64_t i = 0; i < n; ++i) order.push_back(permutation(i));
        orders.insert(order);
        std::sort(order.begin(), order.end());
        std::iota(all.begin(), all.end(), uint64_t{0});
        EXPECT_EQ(order, all);
      }
    }
    if (n >= 10) {
      EXPECT_EQ(orders.size(), 6u);
    }
  }
  const uint64_t large = uint64_t{1} << 40;
  EXPECT_LT(Permutation(large - 1, {1})(large / 3), large - 1);
}

TEST(Permutation, IsUniform) {
  constexpr int kSize = 5, kKeys = 5000;
  int counts[kSize][kSize] = {};
  for (uint64_t key = 0; key < kKeys; ++key) {
    const Permutation permutation(kSize, {key});
    for (int i = 0; i < kSize; ++i) ++counts[i][permutation(i)];
  }
  // Binomial(5000, 1/5): standard deviation 28.3.
  for (const auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, kKeys / kSize, 5 * 28.3);
  }
}

TEST(CutIntoPieces, ByHand) {
  const auto corpus = numbered({5, 1, 4});
  std::vector<std::pair<int64_t, int64_t>> pieces;
  for (const Piece& piece : cut_into_pieces(*corpus, 2)) pieces.emplace_back(piece.begin, piece.length);
  EXPECT_EQ(pieces, (std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {2, 2}, {4, 1}, {6, 1}, {8, 2}, {10, 2}}));
}

// How often each token of the corpus is an input of the steps [0, steps).
std::map<int64_t, int> uses(const BatchSource& source, int64_t steps) {
  std::map<int64_t, int> uses;
  for (int64_t step = 0; step < steps; ++step)
    for (const int64_t token : source.batch(step).tokens)
      if (token != kEos) ++uses[token];
  return uses;
}

TEST(BlockSource, UsesEveryTokenInEachEpoch) {
  for (const int documents : {1, 2, 61}) {
    const auto corpus = ragged(documents);
    int64_t words = 0;
    for (const auto& document : corpus->documents()) words += document.length - 1;
    for (const int64_t context : {2, 7, 16, 1000}) {
      const BlockSource source(corpus, context, 3 * context, 3);
      EXPECT_EQ(source.epoch_tokens(), corpus->tokens());
      const int64_t blocks = (corpus->tokens() + context - 1) / context;
      // Three epochs are a whole number of batches.
      const auto counts = uses(source, blocks);
      EXPECT_EQ(static_cast<int64_t>(counts.size()), words);
      int64_t total = 0;
      for (const auto& [token, count] : counts) {
        EXPECT_GE(count, 3);
        total += count;
      }
      if (context < corpus->tokens()) {
        EXPECT_LT(total, 3 * (words + context));
      }
      for (int64_t step = 0; step < 5; ++step) check_sequences(source.batch(step), *corpus, context);
    }
  }
}

TEST(BlockSource, EpochsDifferInOrderAndPlace) {
  const BlockSource source(ragged(40), 16, 16, 3);
  const int64_t blocks = (source.epoch_tokens() + 15) / 16;
  std::set<std::vector<int64_t>> first;
  for (int64_t i = 0; i < blocks; ++i) first.insert(source.batch(i).tokens);
  int same = 0;
  for (int64_t i = blocks; i < 2 * blocks; ++i) same += static_cast<int>(first.count(source.batch(i).tokens));
  EXPECT_LT(same, 3);
}

TEST(BlockSource, SeeksToAnyStep) {
  const auto corpus = ragged(40);
  const BlockSource forward(corpus, 32, 64, 9), backward(corpus, 32, 64, 9), other(corpus, 32, 64, 10);
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

// Ranks take steps of their own; together they see what one sees with larger batches.
TEST(BlockSource, RanksShareTheWork) {
  const auto corpus = ragged(40);
  const BlockSource one(corpus, 16, 4 * 32, 9), shared(corpus, 16, 32, 9);
  for (int64_t step = 0; step < 30; ++step) {
    std::vector<int64_t> together;
    for (int64_t rank = 0; rank < 4; ++rank) {
      const Batch batch = shared.batch(step * 4 + rank);
      together.insert(together.end(), batch.tokens.begin(), batch.tokens.end());
    }
    EXPECT_EQ(one.batch(step).tokens, together);
  }
}

// Fails when the stream changes, and with it what a resumed run would see.
TEST(BlockSource, StreamIsFixed) {
  const Batch batch = BlockSource(ragged(10), 8, 16, 1).batch(3);
  EXPECT_EQ(batch.tokens,
            (std::vector<int64_t>{329, 330, 1, 402, 403, 404, 405, 406, 431, 432, 433, 434, 435, 436, 437, 438}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 3, 8, 16}));
}

TEST(BlockSource, RefusesBadSizes) {
  const auto corpus = numbered({5});
  EXPECT_INPUT_ERROR(BlockSource(corpus, 1, 4, 1), "context must be 2 to");
  EXPECT_INPUT_ERROR(BlockSource(corpus, 4, 6, 1), "multiple of the context 4");
  EXPECT_INPUT_ERROR(BlockSource(corpus, 4, 0, 1), "multiple of the context 4");
  EXPECT_INPUT_ERROR(BlockSource(corpus, 4, 4, 1).batch(-1), "must not be negative");
  EXPECT_INPUT_ERROR(TokenCorpus::from_documents({}, 10, kEos), "no document");
  EXPECT_INPUT_ERROR(TokenCorpus::from_documents({{kEos}, {kEos}}, 10, kEos), "no document");
  EXPECT_INPUT_ERROR(TokenCorpus::from_documents({{3, 10, kEos}}, 10, kEos), "token id 10");
  EXPECT_INPUT_ERROR(TokenCorpus::from_documents({{3}}, 10, kEos), "does not end with eos");
}

// Batches of one part: its number, in the vocabulary of its source.
class Numbers : public BatchSource {
 public:
  explicit Numbers(int64_t source) : source_(source) {}
  Batch batch(int64_t step) const override { return {{source_, step}, {step, kIgnoredTarget}, {0, 1, 2}}; }
  int64_t batch_tokens() const override { return 2; }
  int64_t vocab_size() const override { return 10 + source_; }
  int64_t max_length() const override { return 1; }
  int64_t epoch_tokens() const override { return 0; }

 private:
  int64_t source_;
};

MixtureSource mixture(const std::vector<double>& weights, int64_t batch_tokens, uint64_t seed) {
  std::vector<MixtureSource::Member> members;
  for (size_t i = 0; i < weights.size(); ++i)
    members.push_back({std::make_unique<Numbers>(static_cast<int64_t>(i)), weights[i]});
  return {std::move(members), batch_tokens, seed};
}

TEST(Mixture, KeepsToItsWeightsAndSkipsNothing) {
  for (const std::vector<double>& weights :
       {std::vector<double>{1}, {1, 1}, {3, 1}, {0.7, 0.2, 0.1}, {1e-9, 5, 1e-9}, {1, 1, 1, 1, 1, 1, 1}}) {
    const MixtureSource source = mixture(weights, 16, 5);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    EXPECT_EQ(std::accumulate(source.quotas().begin(), source.quotas().end(), int64_t{0}), MixtureSource::kGroup);
    for (size_t i = 0; i < weights.size(); ++i)
      EXPECT_NEAR(static_cast<double>(source.quotas()[i]), weights[i] / sum * MixtureSource::kGroup, 2);
    std::vector<int64_t> next(weights.size());
    for (int64_t step = 0; step < 3 * MixtureSource::kGroup / 8; ++step) {
      const Batch batch = source.batch(step);
      ASSERT_EQ(batch.tokens.size(), 16u);
      EXPECT_EQ(batch.sequences(), 16);
      for (size_t at = 0; at < 16; at += 2) EXPECT_EQ(batch.tokens[at + 1], next[batch.tokens[at]]++);
    }
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_EQ(next[i], 3 * source.quotas()[i]);
  }
}

TEST(Mixture, OrderIsAFunctionOfTheSeed) {
  const MixtureSource a = mixture({1, 1}, 64, 1), b = mixture({1, 1}, 64, 1), c = mixture({1, 1}, 64, 2);
  for (const int64_t step : {100, 3, 0}) {
    EXPECT_EQ(a.batch(step).tokens, b.batch(step).tokens);
    EXPECT_NE(a.batch(step).tokens, c.batch(step).tokens);
  }
  EXPECT_EQ(a.vocab_size(), 11);
  EXPECT_INPUT_ERROR(mixture({}, 64, 1), "1 to 512 sources");
  EXPECT_INPUT_ERROR(mixture({1, 0}, 64, 1), "above 0");
  EXPECT_INPUT_ERROR(mixture({1}, 63, 1), "multiple of 2");
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
    const int64_t inputs = corpus->tokens() - 23;  // all but the documents' eos
    EXPECT_EQ(windows.inputs(), inputs);
    EXPECT_EQ(static_cast<int64_t>(seen.size()), inputs);
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
    EXPECT_TRUE(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
    EXPECT_INPUT_ERROR(windows.batch(windows.batches()), "validation batches");
  }
}

// A part of the corpus is taken from all of it: here every second piece, from each document.
TEST(TextWindows, SpreadOverTheCorpus) {
  const auto corpus = numbered({20, 20, 20});
  const TextWindows windows(corpus, 10, 20, 30);
  EXPECT_EQ(windows.inputs(), 30);
  ASSERT_EQ(windows.batches(), 2);
  const auto starts = [](const Batch& batch) {
    std::vector<int64_t> out;
    for (size_t i = 0; i + 1 < batch.cu_seqlens.size(); ++i) out.push_back(batch.tokens[batch.cu_seqlens[i]]);
    return out;
  };
  EXPECT_EQ(starts(windows.batch(0)), (std::vector<int64_t>{2, 102}));
  EXPECT_EQ(starts(windows.batch(1)), (std::vector<int64_t>{202}));
  for (const int64_t most : {1, 7, 13, 50, 59}) {
    const int64_t inputs = TextWindows(corpus, 10, 20, most).inputs();
    EXPECT_NEAR(static_cast<double>(inputs), static_cast<double>(most), 10) << most;
  }
  EXPECT_EQ(TextWindows(corpus, 10, 20, 60).inputs(), 60);
}

}  // namespace
}  // namespace oryx
