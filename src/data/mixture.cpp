#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "data/permutation.h"

namespace oryx {
namespace {

constexpr uint64_t kMixturePurpose = 0x6d69787475726573;

// Whole numbers in proportion to the weights that add up to `total`, none of them 0 (largest remainders).
std::vector<int64_t> apportion(const std::vector<double>& weights, int64_t total) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> shares;
  shares.reserve(weights.size());
  for (const double weight : weights)
    shares.push_back(std::max<int64_t>(1, std::llround(weight / sum * static_cast<double>(total))));
  const auto excess = [&](size_t i) {
    return static_cast<double>(shares[i]) - weights[i] / sum * static_cast<double>(total);
  };
  for (int64_t left = total - std::accumulate(shares.begin(), shares.end(), int64_t{0}); left != 0;) {
    size_t best = 0;  // the share that is furthest from what it should be, in the direction that is wanted
    const auto better = [&](size_t i) {
      if (left > 0) return excess(i) < excess(best);
      return shares[i] > 1 && (shares[best] == 1 || excess(i) > excess(best));
    };
    for (size_t i = 1; i < shares.size(); ++i)
      if (better(i)) best = i;
    shares[best] += left > 0 ? 1 : -1;
    left += left > 0 ? -1 : 1;
  }
  return shares;
}

}  // namespace

MixtureSource::MixtureSource(std::vector<Member> members, int64_t batch_tokens, uint64_t seed)
    : members_(std::move(members)), batch_tokens_(batch_tokens), seed_(seed) {
  require(!members_.empty() && static_cast<int64_t>(members_.size()) <= kGroup / 2,
          "a mixture needs 1 to {} sources, not {}", kGroup / 2, members_.size());
  std::vector<double> weights;
  part_tokens_ = members_.front().source->batch_tokens();
  for (const Member& member : members_) {
    require(std::isfinite(member.weight) && member.weight > 0, "the weight of a source must be above 0, not {}",
            member.weight);
    require(member.source->batch_tokens() == part_tokens_, "the sources of a mixture must have batches of one size");
    weights.push_back(member.weight);
  }
  require(batch_tokens >= part_tokens_ && batch_tokens % part_tokens_ == 0,
          "batch_tokens must be a multiple of {}, not {}", part_tokens_, batch_tokens);
  quotas_ = apportion(weights, kGroup);
}

std::vector<MixtureSource::Part> MixtureSource::group(int64_t number) const {
  const Permutation order(kGroup, {seed_, kMixturePurpose, static_cast<uint64_t>(number)});
  std::vector<int64_t> used(members_.size());
  std::vector<Part> parts;
  for (int64_t i = 0; i < kGroup; ++i) {
    auto drawn = static_cast<int64_t>(order(static_cast<uint64_t>(i)));
    size_t member = 0;
    while (drawn >= quotas_[member]) drawn -= quotas_[member++];
    parts.push_back({member, number * quotas_[member] + used[member]++});
  }
  return parts;
}

Batch MixtureSource::batch(int64_t step) const {
  require(step >= 0, "a batch's step must not be negative, and is {}", step);
  Batch batch;
  batch.cu_seqlens.push_back(0);
  const int64_t count = batch_tokens_ / part_tokens_;
  std::vector<Part> parts;
  for (int64_t number = step * count; number < (step + 1) * count; ++number) {
    if (parts.empty() || number % kGroup == 0) parts = group(number / kGroup);
    const Part& part = parts[number % kGroup];
    const Batch own = members_[part.member].source->batch(part.step);
    const auto offset = static_cast<int32_t>(batch.tokens.size());
    batch.tokens.insert(batch.tokens.end(), own.tokens.begin(), own.tokens.end());
    batch.targets.insert(batch.targets.end(), own.targets.begin(), own.targets.end());
    for (size_t i = 1; i < own.cu_seqlens.size(); ++i) batch.cu_seqlens.push_back(offset + own.cu_seqlens[i]);
  }
  return batch;
}

int64_t MixtureSource::vocab_size() const {
  int64_t largest = 0;
  for (const Member& member : members_) largest = std::max(largest, member.source->vocab_size());
  return largest;
}

int64_t MixtureSource::max_length() const {
  int64_t longest = 0;
  for (const Member& member : members_) longest = std::max(longest, member.source->max_length());
  return longest;
}

}  // namespace oryx
