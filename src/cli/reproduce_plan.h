#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "data/recall.h"
#include "train/comparison.h"

namespace oryx::cli {

// What `oryx reproduce` measures of the models that it trained: the [evaluation] table.
struct EvaluationPlan {
  std::vector<std::string> tasks;      // language modelling (oryx eval list), in each mode of a model
  std::vector<std::string> retrieval;  // tasks that are swept over places and fractions
  std::optional<RecallTask> recall;    // [evaluation.recall]: associative recall, swept too
  std::vector<std::string> places{"tail", "head", "question", "random", "every"};  // or policies
  std::vector<double> fractions{0, 0.02, 0.05, 0.1, 0.25, 0.5, 1};
  std::filesystem::path data;     // a folder of sets (oryx eval fetch) in place of the samples that come with Oryx
  int64_t limit = 100;            // examples of each task
  int64_t length = 0;             // tokens of the examples of synthetic tasks; 0: as the task says
  std::vector<int64_t> contexts;  // tokens before what is timed

  // `folder`: from which a relative `data` is taken. InputErrors name the key.
  static EvaluationPlan read(Fields fields, const std::filesystem::path& folder);
  Json to_json() const;
};

// A reproduction's file: a comparison, and [evaluation].
struct ReproducePlan {
  Comparison comparison;
  EvaluationPlan evaluation;
  static ReproducePlan load(const std::filesystem::path& path, const std::vector<std::string>& overrides);
};

// The modes of a trained model by name and schedule: attention and recurrent as far as it has them; of a fixed hybrid
// "schedule" alone. `recipe` as Recipe::to_json.
std::vector<std::pair<std::string, std::string>> own_modes(const Json& recipe);

}  // namespace oryx::cli
