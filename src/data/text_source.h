#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "data/batch.h"
#include "data/corpus.h"

namespace oryx {

// The numbers 0 ... n-1 in the order of an epoch: a permutation that is a function of (seed, epoch, n) alone.
std::vector<uint32_t> epoch_order(int64_t n, uint64_t seed, int64_t epoch);

// A run of inputs within one document: tokens [begin, begin + length), whose targets are one token further on.
struct Piece {
  int64_t begin;
  int64_t length;
};
// Every input of the corpus once, in order, cut into pieces of at most `context` inputs. InputError for context < 1.
std::vector<Piece> cut_into_pieces(const TokenCorpus& corpus, int64_t context);

// Batches from documents. An epoch is all pieces in a shuffled order, another one for each epoch; the epochs laid end
// to end are one endless stream of inputs, and batch k is the part [k * batch_tokens, (k + 1) * batch_tokens) of it. So
// each input is used once per epoch, and every batch is full. Each piece, or part of a piece where a batch ends within
// it, is a sequence: none reaches across a document's end, and none is longer than `context`.
class TextSource : public BatchSource {
 public:
  // InputError unless 1 <= context and 1 <= batch_tokens.
  TextSource(std::shared_ptr<const TokenCorpus> corpus, int64_t context, int64_t batch_tokens, uint64_t seed);

  Batch batch(int64_t step) const override;
  int64_t batch_tokens() const override { return batch_tokens_; }
  int64_t vocab_size() const override { return corpus_->vocab_size(); }
  int64_t max_length() const override { return context_; }
  int64_t epoch_tokens() const override { return corpus_->inputs(); }

 private:
  struct Epoch {
    int64_t number = -1;
    std::vector<uint32_t> order;  // of the pieces
    std::vector<int64_t> starts;  // inputs before each of them
  };
  std::shared_ptr<const Epoch> epoch(int64_t number) const;

  std::shared_ptr<const TokenCorpus> corpus_;
  int64_t context_, batch_tokens_;
  uint64_t seed_;
  std::vector<Piece> pieces_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Epoch> cached_[2];  // by the epoch's parity: a batch can span an epoch's end
};

// Batches for evaluation: the pieces in the corpus's order, each input once, as many whole pieces in a batch as fit
// within batch_tokens (at least one). `max_inputs` > 0 stops after the first batch that reaches so many inputs.
class TextWindows {
 public:
  TextWindows(std::shared_ptr<const TokenCorpus> corpus, int64_t context, int64_t batch_tokens, int64_t max_inputs = 0);
  int64_t batches() const { return static_cast<int64_t>(first_piece_.size()) - 1; }
  Batch batch(int64_t index) const;           // 0 <= index < batches()
  int64_t inputs() const { return inputs_; }  // of all batches

 private:
  std::shared_ptr<const TokenCorpus> corpus_;
  std::vector<Piece> pieces_;
  std::vector<size_t> first_piece_;  // of each batch, and the end
  int64_t inputs_ = 0;
};

}  // namespace oryx
