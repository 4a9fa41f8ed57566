#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "data/batch.h"
#include "data/text_windows.h"
#include "data/tokenizer.h"
#include "train/recipe.h"

namespace oryx {

// The batches that a recipe names. For text without a tokenizer one is learned and kept in the run's folder; the
// recipe's vocabulary size becomes the tokenizer's unless the recipe gives one. Of several ranks the first is the one
// to learn it; the others are made later and need to see the same folder.
class TrainingData {
 public:
  TrainingData(Recipe& recipe, const std::filesystem::path& run, bool learns = true);
  const BatchSource& train() const { return *train_; }
  int64_t valid_batches() const { return valid_batches_; }  // 0: there is nothing to validate on
  Batch valid_batch(int64_t index) const { return windows_ ? windows_->batch(index) : valid_->batch(index); }
  // What a model directory needs beside the weights: tokenizer.model, or recall.json.
  void save_into(const std::filesystem::path& directory) const;

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::optional<RecallTask> recall_;
  std::unique_ptr<BatchSource> train_, valid_;
  std::unique_ptr<TextWindows> windows_;
  int64_t valid_batches_ = 0;
};

}  // namespace oryx
