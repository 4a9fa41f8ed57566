#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>

#include "base/json.h"
#include "train/comparison.h"
#include "train/training_data.h"

namespace oryx::cli {

// Trains the models of a comparison one after another into OUT/MODEL/seed-N and keeps OUT/comparison.{json,md,html} up
// to date.
class ComparisonRun {
 public:
  // InputError without `resume` when `out` already holds a comparison.
  ComparisonRun(Comparison comparison, std::filesystem::path out, bool resume, at::Device device);

  // The signal that ended it early, or 0. Seed by seed, so that the models can be compared early. InputErrors: a
  // finished run that had another recipe or other tokens, data that changed since the comparison began.
  int run();

  // That of one model and seed, by their places in comparison(), in a process of its own beside others: leaves the
  // comparison's own files alone.
  int run_one(size_t model, size_t seed);

  // What processes of single runs share: a tokenizer learned from the text, and the data's digests. run() goes on with
  // what they leave.
  void prepare();

  const Comparison& comparison() const { return comparison_; }
  const std::filesystem::path& out() const { return out_; }
  const Json& results() const { return results_; }  // comparison.json

 private:
  void load_data(Recipe recipe);
  void check_tokens(const std::filesystem::path& run, int64_t seed);
  void share_tokenizer(const std::filesystem::path& run) const;
  void write_reports();

  Comparison comparison_;
  std::filesystem::path out_;
  bool resume_;
  at::Device device_;
  Json digests_ = Json::object(), results_;
  std::unique_ptr<TrainingData> data_;  // of the seed that is being trained
};

// Makes the folder of a command that trains in one process, and refuses to be one of several ranks.
void make_out_folder(const std::filesystem::path& out, const char* command);

}  // namespace oryx::cli
