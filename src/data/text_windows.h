#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batch.h"
#include "data/corpus.h"

namespace oryx {

// A run of inputs within one document: tokens [begin, begin + length), whose targets are one token further on.
struct Piece {
  int64_t begin;
  int64_t length;
};
// Every input of the corpus once, in order, cut into pieces of at most `context` inputs. InputError for context < 1.
std::vector<Piece> cut_into_pieces(const TokenCorpus& corpus, int64_t context);

// Batches for evaluation: the pieces in the corpus's order, each input once, as many whole pieces in a batch as fit
// within batch_tokens (at least one). With `max_inputs` > 0 only so many inputs, to within a piece, spread evenly over
// the corpus, so that each of several files has its share.
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
