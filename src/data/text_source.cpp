#include "data/text_source.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace oryx {
namespace {

constexpr uint64_t kOrderPurpose = 0x65706f63686f7264;

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

}  // namespace

std::vector<uint32_t> epoch_order(int64_t n, uint64_t seed, int64_t epoch) {
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  Random random{seed, kOrderPurpose, static_cast<uint64_t>(epoch)};
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);  // Fisher-Yates
  return order;
}

std::vector<Piece> cut_into_pieces(const TokenCorpus& corpus, int64_t context) {
  require(context >= 1, "context must be at least 1 token, not {}", context);
  std::vector<Piece> pieces;
  for (const auto& [begin, length] : corpus.documents()) {
    for (int64_t at = 0; at < length - 1; at += context)
      pieces.push_back({begin + at, std::min(context, length - 1 - at)});
  }
  return pieces;
}

TextSource::TextSource(std::shared_ptr<const TokenCorpus> corpus, int64_t context, int64_t batch_tokens, uint64_t seed)
    : corpus_(std::move(corpus)), context_(context), batch_tokens_(batch_tokens), seed_(seed) {
  require_sizes(context, batch_tokens);
  pieces_ = cut_into_pieces(*corpus_, context);
  require(pieces_.size() <= UINT32_MAX, "{} pieces of text are too many: use a context longer than {}", pieces_.size(),
          context);
}

std::shared_ptr<const TextSource::Epoch> TextSource::epoch(int64_t number) const {
  const std::lock_guard lock(mutex_);
  auto& slot = cached_[number % 2];
  if (!slot || slot->number != number) {
    auto made = std::make_shared<Epoch>();
    made->number = number;
    made->order = epoch_order(static_cast<int64_t>(pieces_.size()), seed_, number);
    made->starts.reserve(made->order.size());
    int64_t start = 0;
    for (const uint32_t index : made->order) {
      made->starts.push_back(start);
      start += pieces_[index].length;
    }
    slot = std::move(made);
  }
  return slot;
}

Batch TextSource::batch(int64_t step) const {
  require(step >= 0, "a batch's step must not be negative, and is {}", step);
  Batch batch;
  batch.tokens.reserve(batch_tokens_);
  batch.targets.reserve(batch_tokens_);
  batch.cu_seqlens.push_back(0);
  int64_t position = step * batch_tokens_;
  const int64_t end = position + batch_tokens_, per_epoch = corpus_->inputs();
  while (position < end) {
    const auto current = epoch(position / per_epoch);
    int64_t offset = position % per_epoch;
    size_t index =
        std::upper_bound(current->starts.begin(), current->starts.end(), offset) - current->starts.begin() - 1;
    for (; index < current->order.size() && position < end; ++index) {
      const Piece& piece = pieces_[current->order[index]];
      const int64_t skipped = offset - current->starts[index];
      const int64_t length = std::min(piece.length - skipped, end - position);
      append(*corpus_, piece.begin + skipped, length, batch);
      position += length;
      offset += length;
    }
  }
  return batch;
}

TextWindows::TextWindows(std::shared_ptr<const TokenCorpus> corpus, int64_t context, int64_t batch_tokens,
                         int64_t max_inputs)
    : corpus_(std::move(corpus)) {
  require_sizes(context, batch_tokens);
  pieces_ = cut_into_pieces(*corpus_, context);
  int64_t in_batch = 0;
  first_piece_.push_back(0);
  size_t index = 0;
  for (; index < pieces_.size(); ++index) {
    const int64_t length = pieces_[index].length;
    if (in_batch > 0 && in_batch + length > batch_tokens) {
      first_piece_.push_back(index);
      in_batch = 0;
      if (max_inputs > 0 && inputs_ >= max_inputs) break;
    }
    in_batch += length;
    inputs_ += length;
  }
  if (in_batch > 0) first_piece_.push_back(index);
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
