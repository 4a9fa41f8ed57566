#include "eval/prompts.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace oryx {

Prompts::Prompts(const Task& task, const EvaluationOptions& options, std::vector<Example> examples)
    : task_(task), examples_(std::move(examples)) {
  const auto all = static_cast<int64_t>(examples_.size());
  size_ = options.limit > 0 ? std::min(options.limit, all) : all;
  for (const Example& example : examples_) task.check(example);
  require(options.shots >= 0 && options.shots < all,
          "task '{}' has {} examples, so --shots must be from 0 to {}, but is {}", task.name, all, all - 1,
          options.shots);
  const int64_t drawn = options.shots > 0 ? options.shots + 1 : 0;
  Random random{options.seed};
  while (static_cast<int64_t>(shots_.size()) < drawn) {
    const auto i = static_cast<int64_t>(random.below(all));
    if (std::ranges::find(shots_, i) == shots_.end()) shots_.push_back(i);
  }
  for (size_t left_out = 0; left_out < std::max<size_t>(shots_.size(), 1); ++left_out) {
    std::vector<const Example*> shown;
    for (size_t s = 0; s < shots_.size(); ++s)
      if (s != left_out) shown.push_back(&examples_[shots_[s]]);
    headers_.push_back(task.header(shown));
  }
}

Prompt Prompts::prompt(int64_t i, int64_t choice) const {
  Prompt prompt = task_.prompt(examples_[i], choice);
  // The spare one is the last, so that nearly all examples share one header.
  const auto own = std::ranges::find(shots_, i);
  const size_t left_out = own == shots_.end() ? headers_.size() - 1 : own - shots_.begin();
  prompt.context = headers_[left_out] + prompt.context;
  return prompt;
}

}  // namespace oryx
