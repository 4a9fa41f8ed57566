#include "data/text_windows.h"

#include <algorithm>

#include "base/error.h"

namespace oryx {
namespace {

void append(const TokenCorpus& corpus, int64_t begin, int64_t length, Batch& batch) {
  const size_t at = batch.tokens.size();
  batch.tokens.resize(at + length);
  batch.targets.resize(at + length);
  corpus.copy(begin, length, &batch.tokens[at]);
  corpus.copy(begin + 1, length, &batch.targets[at]);
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
}

void require_sizes(int64_t context, int64_t batch_tokens) {
  require(context >= 1 && context <= INT32_MAX, "context must be 1 to {} tokens, not {}", INT32_MAX, context);
  require(batch_tokens >= 1 && batch_tokens <= INT32_MAX, "batch_tokens must be 1 to {}, not {}", INT32_MAX,
          batch_tokens);
}

// At an even pace through all pieces, as many as hold `most` inputs (0: all).
std::vector<Piece> spread(std::vector<Piece> pieces, int64_t most) {
  int64_t all = 0;
  for (const Piece& piece : pieces) all += piece.length;
  if (most <= 0 || all <= most) return pieces;
  int64_t passed = 0, taken = 0;
  std::erase_if(pieces, [&](const Piece& piece) {
    const bool take = taken * all <= passed * most;
    passed += piece.length;
    if (take) taken += piece.length;
    return !take;
  });
  return pieces;
}

}  // namespace

std::vector<Piece> cut_into_pieces(const TokenCorpus& corpus, int64_t context) {
  require(context >= 1, "context must be at least 1 token, not {}", context);
  std::vector<Piece> pieces;
  for (const auto& [begin, length] : corpus.documents()) {
    for (int64_t at = 0; at < length - 1; at += context)
      pieces.push_back({begin + at, std::min(context, length - 1 - at)});
  }
  return pieces;
}

TextWindows::TextWindows(std::shared_ptr<const TokenCorpus> corpus, int64_t context, int64_t batch_tokens,
                         int64_t max_inputs)
    : corpus_(std::move(corpus)) {
  require_sizes(context, batch_tokens);
  pieces_ = spread(cut_into_pieces(*corpus_, context), max_inputs);
  int64_t in_batch = 0;
  for (size_t index = 0; index < pieces_.size(); ++index) {
    const int64_t length = pieces_[index].length;
    if (index == 0 || in_batch + length > batch_tokens) {
      first_piece_.push_back(index);
      in_batch = 0;
    }
    in_batch += length;
    inputs_ += length;
  }
  first_piece_.push_back(pieces_.size());
}

Batch TextWindows::batch(int64_t index) const {
  require(index >= 0 && index < batches(), "there are {} validation batches, and no number {}", batches(), index);
  Batch batch;
  batch.cu_seqlens.push_back(0);
  for (size_t i = first_piece_[index]; i < first_piece_[index + 1]; ++i)
    append(*corpus_, pieces_[i].begin, pieces_[i].length, batch);
  return batch;
}

}  // namespace oryx
