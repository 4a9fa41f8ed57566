#pragma once

#include <vector>

#include "eval/evaluation.h"
#include "eval/example.h"
#include "eval/task.h"

namespace oryx {

// A task's examples with what stands before each of them.
class Prompts {
 public:
  Prompts(const Task& task, const EvaluationOptions& options, std::vector<Example> examples);

  int64_t size() const { return size_; }
  const Example& example(int64_t i) const { return examples_[i]; }
  // With the description and the shots at the beginning of its context.
  Prompt prompt(int64_t i, int64_t choice = -1) const;

 private:
  const Task& task_;
  std::vector<Example> examples_;
  int64_t size_;
  std::vector<int64_t> shots_;        // one more than asked for: an example does not stand before itself
  std::vector<std::string> headers_;  // without each of the shots in turn
};

}  // namespace oryx
