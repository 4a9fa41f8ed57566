#pragma once

#include <cstdint>
#include <vector>

#include "data/batch.h"

namespace oryx {

// What one of several ranks takes of every step's batch. The batch is a row of micro batches, the same for any number
// of ranks: each rank takes a stretch of whole ones, or where there are fewer of them than ranks, an equal part of one.
class BatchShare {
 public:
  // InputError when the sizes (in tokens) do not divide. Batches come in sequences, or rows of them, of `context`
  // tokens.
  BatchShare(int64_t batch_tokens, int64_t micro_batch_tokens, int64_t context, int rank, int ranks);

  std::vector<Batch> batches(const BatchSource& source, int64_t step) const;
  int64_t micro_batch_tokens() const { return end_ - begin_; }  // that are run at once
  int64_t count() const { return count_; }                      // micro batches, one after the other

 private:
  int64_t parts_, first_, count_;  // micro batches: of a step; those taken
  int64_t begin_, end_;            // the tokens of each that are taken
};

// Tokens [begin, end) of a batch, which must be whole sequences.
Batch cut_batch(const Batch& batch, int64_t begin, int64_t end);

}  // namespace oryx
