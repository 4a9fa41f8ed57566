#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batch.h"

namespace oryx {

// Batches put together from the batches of several sources ("parts", all of one size), each as often as its weight
// says: of every kGroup parts in a row exactly the share of its weight, to a whole part, in an order drawn for that
// group. Which part of which source comes where is a function of (seed, step) alone, and no source skips or repeats
// one.
class MixtureSource : public BatchSource {
 public:
  static constexpr int64_t kGroup = 1024;
  struct Member {
    std::unique_ptr<BatchSource> source;
    double weight;
  };
  // InputError when there is no member, a weight is not positive, or batch_tokens is not a multiple of the parts' size.
  MixtureSource(std::vector<Member> members, int64_t batch_tokens, uint64_t seed);

  Batch batch(int64_t step) const override;
  int64_t batch_tokens() const override { return batch_tokens_; }
  int64_t vocab_size() const override;
  int64_t max_length() const override;
  int64_t epoch_tokens() const override { return 0; }

  // How many parts of each group are the member's.
  const std::vector<int64_t>& quotas() const { return quotas_; }

 private:
  struct Part {
    size_t member;
    int64_t step;
  };
  std::vector<Part> group(int64_t number) const;

  std::vector<Member> members_;
  std::vector<int64_t> quotas_;
  int64_t batch_tokens_, part_tokens_ = 0;
  uint64_t seed_;
};

}  // namespace oryx
