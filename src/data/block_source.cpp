#include "data/block_source.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "data/permutation.h"

namespace oryx {
namespace {

constexpr uint64_t kOrderPurpose = 0x65706f63686f7264, kPlacePurpose = 0x626c6f636b706c61;

}  // namespace

BlockSource::BlockSource(std::shared_ptr<const TokenCorpus> corpus, int64_t context, int64_t batch_tokens,
                         uint64_t seed)
    : corpus_(std::move(corpus)), context_(context), batch_tokens_(batch_tokens), blocks_(0), seed_(seed) {
  require(context >= 2 && context <= INT32_MAX, "context must be 2 to {} tokens, not {}", INT32_MAX, context);
  require(batch_tokens >= context && batch_tokens <= INT32_MAX && batch_tokens % context == 0,
          "batch_tokens must be a multiple of the context {}, at most {}, not {}", context, INT32_MAX, batch_tokens);
  blocks_ = (corpus_->tokens() + context - 1) / context;
}

void BlockSource::append_block(int64_t number, Batch& batch) const {
  const auto epoch = static_cast<uint64_t>(number / blocks_), index = static_cast<uint64_t>(number % blocks_);
  const int64_t size = corpus_->tokens();
  const auto place = static_cast<int64_t>(Random{seed_, kPlacePurpose, epoch}.below(static_cast<uint64_t>(size)));
  const auto block =
      static_cast<int64_t>(Permutation(static_cast<uint64_t>(blocks_), {seed_, kOrderPurpose, epoch})(index));
  const size_t first = batch.tokens.size();
  batch.tokens.resize(first + context_ + 1);  // and what follows the last one
  int64_t at = (place + block * context_) % size;
  for (int64_t done = 0; done <= context_; at = 0) {
    const int64_t count = std::min(size - at, context_ + 1 - done);
    corpus_->copy(at, count, &batch.tokens[first + done]);
    done += count;
  }
  batch.targets.insert(batch.targets.end(), batch.tokens.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                       batch.tokens.end());
  batch.tokens.pop_back();
  for (size_t i = first; i < batch.tokens.size(); ++i) {
    const bool ends = batch.tokens[i] == corpus_->eos_id();
    if (ends) batch.targets[i] = kIgnoredTarget;
    if (ends || i + 1 == batch.tokens.size()) batch.cu_seqlens.push_back(static_cast<int32_t>(i + 1));
  }
}

Batch BlockSource::batch(int64_t step) const {
  require(step >= 0, "a batch's step must not be negative, and is {}", step);
  Batch batch;
  batch.tokens.reserve(batch_tokens_ + 1);
  batch.targets.reserve(batch_tokens_);
  batch.cu_seqlens.push_back(0);
  const int64_t count = batch_tokens_ / context_;
  for (int64_t i = 0; i < count; ++i) append_block(step * count + i, batch);
  return batch;
}

}  // namespace oryx
