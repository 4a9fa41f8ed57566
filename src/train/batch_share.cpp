#include "train/batch_share.h"

#include <stdexcept>

#include "base/error.h"

namespace oryx {

BatchShare::BatchShare(int64_t batch_tokens, int64_t micro_batch_tokens, int64_t context, int rank, int ranks)
    : parts_(batch_tokens / micro_batch_tokens), end_(micro_batch_tokens) {
  if (parts_ % ranks == 0) {
    count_ = parts_ / ranks, first_ = rank * count_, begin_ = 0;
    return;
  }
  const int64_t ranks_per_part = ranks % parts_ == 0 ? ranks / parts_ : 0;
  const int64_t unit = ranks * context, divisible = (batch_tokens + unit - 1) / unit * unit;
  require(ranks_per_part > 0 && micro_batch_tokens % (ranks_per_part * context) == 0,
          "[train] a batch of {} tokens in micro batches of {} cannot be shared by {} ranks, each of which takes whole "
          "micro batches or an equal part of one in multiples of the context {}; batch_tokens = {} with "
          "micro_batch_tokens = {} would do",
          batch_tokens, micro_batch_tokens, ranks, context, divisible, divisible / ranks);
  count_ = 1, first_ = rank / ranks_per_part;
  end_ = micro_batch_tokens / ranks_per_part;
  begin_ = rank % ranks_per_part * end_;
  end_ += begin_;
}

std::vector<Batch> BatchShare::batches(const BatchSource& source, int64_t step) const {
  std::vector<Batch> taken;
  for (int64_t i = 0; i < count_; ++i) {
    Batch part = source.batch(step * parts_ + first_ + i);
    const bool whole = end_ - begin_ == static_cast<int64_t>(part.tokens.size());
    taken.push_back(whole ? std::move(part) : cut_batch(part, begin_, end_));
  }
  return taken;
}

Batch cut_batch(const Batch& batch, int64_t begin, int64_t end) {
  Batch cut;
  cut.tokens.assign(batch.tokens.begin() + begin, batch.tokens.begin() + end);
  cut.targets.assign(batch.targets.begin() + begin, batch.targets.begin() + end);
  for (const int32_t at : batch.cu_seqlens)
    if (at >= begin && at <= end) cut.cu_seqlens.push_back(at - static_cast<int32_t>(begin));
  if (cut.cu_seqlens.empty() || cut.cu_seqlens.front() != 0 || cut.cu_seqlens.back() != end - begin)
    throw std::logic_error("a batch was to be cut inside a sequence");
  return cut;
}

}  // namespace oryx
