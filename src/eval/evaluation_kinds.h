#pragma once

#include <memory>

#include "eval/evaluation.h"

namespace oryx {

// What make_evaluation chooses from.
std::unique_ptr<Evaluation> make_choice_evaluation(const LanguageModel& model, const Tokenizer& tokenizer,
                                                   const Task& task, const EvaluationOptions& options);
std::unique_ptr<Evaluation> make_generation_evaluation(const LanguageModel& model, const Tokenizer& tokenizer,
                                                       const Task& task, const EvaluationOptions& options);
std::unique_ptr<Evaluation> make_text_evaluation(const LanguageModel& model, const Tokenizer& tokenizer,
                                                 const Task& task, const EvaluationOptions& options);

// The attention fraction of many sequences together.
class AttentionMeter {
 public:
  explicit AttentionMeter(int64_t layers) : layers_(layers) {}
  void add(const MixerSchedule& schedule) {
    attention_ += schedule.attention_fraction(layers_) * static_cast<double>(schedule.length());
    tokens_ += static_cast<double>(schedule.length());
  }
  double fraction() const { return tokens_ > 0 ? attention_ / tokens_ : 0; }

 private:
  int64_t layers_;
  double attention_ = 0, tokens_ = 0;
};

}  // namespace oryx
