#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/batch.h"

namespace oryx {

// Multi-query associative recall, as zoology's multiquery_ar (Arora et al. 2023, arXiv 2312.04927): a sequence begins
// with `pairs` keys and their values (k1 v1 k2 v2 ...); each key comes again once, and there its value is the target.
// Keys are drawn without repetition from [1, vocab/2), values from [vocab/2, vocab); every other token has no target.
struct RecallTask {
  int64_t vocab = 256;
  int64_t pairs = 32;
  int64_t length = 128;  // tokens of a sequence
  // Under "power" the queries stand at even distances 2g behind the pairs, the g drawn without repetition with
  // probability proportional to (g+1)^(power_a-1): the smaller, the closer to the pairs.
  double power_a = 0.01;
  // "power", as in the paper, or "end": the queries are the sequence's last tokens, in random order.
  std::string query_placement = "power";
  // What the other tokens are drawn from: "any", all of the vocabulary, or "values", so that a key behind the pairs is
  // a question, as a question in a text is known for one.
  std::string filler = "any";

  bool operator==(const RecallTask&) const = default;
  // InputError that names the field: too few keys, a sequence too short (4 * pairs for "power", 3 * pairs for "end"),
  // ...
  void validate() const;

  // recall.json, which a model directory has when its model learned this task. Reading is strict and validates.
  Json to_json() const;
  static RecallTask from_json(const Json& json, const std::string& where);
  // The same members out of a larger table (a recipe's [data]), which is left for the caller to finish().
  static RecallTask from_fields(Fields& fields);
};

struct RecallExample {
  std::vector<int64_t> tokens, targets;  // [length]
  std::vector<int64_t> queries;          // [pairs], ascending: the positions that have a target
};

class RecallSource : public BatchSource {
 public:
  // As many whole sequences to a batch as fit into batch_tokens; InputError when none does.
  RecallSource(const RecallTask& task, int64_t batch_tokens, uint64_t seed);

  RecallExample example(int64_t step, int64_t sequence) const;  // 0 <= sequence < sequences()
  int64_t sequences() const { return sequences_; }              // per batch
  const RecallTask& task() const { return task_; }

  Batch batch(int64_t step) const override;
  int64_t batch_tokens() const override { return sequences_ * task_.length; }
  int64_t vocab_size() const override { return task_.vocab; }
  int64_t max_length() const override { return task_.length; }
  int64_t epoch_tokens() const override { return 0; }

 private:
  RecallTask task_;
  int64_t sequences_;
  uint64_t seed_;
  std::vector<double> gap_weights_;
};

}  // namespace oryx
