#include "eval/evaluation.h"

#include <cmath>

#include "base/error.h"
#include "eval/evaluation_kinds.h"

namespace oryx {

Json TaskResult::to_json() const {
  const auto number = [](double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); };
  Json out;
  const auto& [first, estimate] = metrics.front();
  if (first == "contains" || first == "exact_match" || first == "found") out["acc"] = estimate.value;
  for (const auto& [name, x] : metrics) {
    out[name] = number(x.value);
    out[name + "_stderr"] = number(x.stderr_);
  }
  out["stderr"] = number(estimate.stderr_);
  out["n"] = n;
  out["attention_fraction"] = attention_fraction;
  out["examples_per_s"] = static_cast<double>(n) / std::max(seconds, 1e-9);
  out.update(more);
  return out;
}

std::unique_ptr<Evaluation> make_evaluation(const LanguageModel& model, const Tokenizer& tokenizer, const Task& task,
                                            const EvaluationOptions& options) {
  require(!options.data.empty() || !task.data.empty() || task.kind == TaskKind::synthetic,
          "task '{}' has no data of its own; give a file with --data", task.name);
  require(options.shots == 0 || !task.reads_text(), "task '{}' reads whole texts and takes no --shots", task.name);
  require(options.length == 0 || task.kind == TaskKind::synthetic,
          "task '{}' has texts of their own length; --length is for synthetic tasks", task.name);
  const auto make = task.reads_text()  ? make_text_evaluation
                    : task.generates() ? make_generation_evaluation
                                       : make_choice_evaluation;
  EvaluationOptions resolved = options;
  if (resolved.batch_tokens == 0) resolved.batch_tokens = model.device().is_cuda() ? 65'536 : 8192;
  return make(model, tokenizer, task, resolved);
}

}  // namespace oryx
