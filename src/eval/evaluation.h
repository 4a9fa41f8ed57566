#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "data/tokenizer.h"
#include "eval/estimate.h"
#include "eval/routing.h"
#include "eval/task.h"
#include "model/language_model.h"

namespace oryx {

struct EvaluationOptions {
  int64_t limit = 0;  // the first so many examples or documents; 0: all
  int64_t shots = 0;  // answered examples before each, drawn once from the others with `seed`
  uint64_t seed = 0;
  std::filesystem::path data;  // in place of the task's own
  int64_t length = 0;          // tokens of the examples of a synthetic task; 0: as the task says
  // Tokens that the model may see at a time; 0: any number, and for text the model's training context. An example that
  // is longer loses its beginning.
  int64_t context = 0;
  int64_t batch_tokens = 0;  // read together; 0: 8,192, and 65,536 on a GPU, where a step of decoding is all launches
};

struct TaskResult {
  std::vector<std::pair<std::string, Estimate>> metrics;  // in the task's order
  int64_t n = 0;                                          // examples or documents
  double attention_fraction = 0;                          // of the tokens read
  double seconds = 0;
  Json more = Json::object();  // what this kind of task tells besides
  // {"METRIC", "METRIC_stderr", ..., "stderr" (of the first metric), "n", "attention_fraction", "examples_per_s"};
  // where the first metric is a share of the examples, "acc" is it too.
  Json to_json() const;
};

// A task's examples, read and tokenised once, to be run under several routings.
class Evaluation {
 public:
  virtual ~Evaluation() = default;
  // `line`, if any, is given an object for each example: id, prompt, answer, prediction, score, schedule (that of the
  // tokens read), and what this kind of task tells besides.
  virtual TaskResult run(const Routing& routing, const std::function<void(const Json&)>& line = {}) const = 0;
};

// `model` and `tokenizer` must outlive it. InputErrors name the data file and line.
std::unique_ptr<Evaluation> make_evaluation(const LanguageModel& model, const Tokenizer& tokenizer, const Task& task,
                                            const EvaluationOptions& options);

}  // namespace oryx
