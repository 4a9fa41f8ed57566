#pragma once

#include <cstdint>
#include <memory>

#include "data/batch.h"
#include "data/corpus.h"

namespace oryx {

// Batches from documents, in blocks of `context` tokens. An epoch lays the corpus in a ring, cuts it into blocks at a
// place of its own, and takes them in an order of its own: both are functions of (seed, epoch), and nothing of the
// corpus's size is kept in memory. Every token is an input at least once in each epoch, at most `context` - 1 of them
// twice. The epochs' blocks are one endless stream; batch k is the k-th batch_tokens / context of them.
//
// Within a block each document, or part of one, is a sequence: nothing reaches across a document's end, whose eos has
// no target.
class BlockSource : public BatchSource {
 public:
  // InputError unless context >= 2 and batch_tokens is a multiple of it.
  BlockSource(std::shared_ptr<const TokenCorpus> corpus, int64_t context, int64_t batch_tokens, uint64_t seed);

  Batch batch(int64_t step) const override;
  int64_t batch_tokens() const override { return batch_tokens_; }
  int64_t vocab_size() const override { return corpus_->vocab_size(); }
  int64_t max_length() const override { return context_; }
  int64_t epoch_tokens() const override { return corpus_->tokens(); }

 private:
  void append_block(int64_t number, Batch& batch) const;

  std::shared_ptr<const TokenCorpus> corpus_;
  int64_t context_, batch_tokens_, blocks_;  // blocks of an epoch
  uint64_t seed_;
};

}  // namespace oryx
