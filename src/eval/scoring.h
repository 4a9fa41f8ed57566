#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/language_model.h"
#include "model/schedule.h"

namespace oryx {

// One sequence to be scored: tokens[i] is predicted from tokens[0, i) for i >= first_scored (at least 1). The last
// token is not read, so `schedule` is of tokens.size() - 1 tokens.
struct ScoringRequest {
  std::vector<int64_t> tokens;
  MixerSchedule schedule;
  int64_t first_scored = 1;
};

struct ScoringResult {
  std::vector<double> logprobs;  // natural, of tokens[first_scored ..)
  bool greedy = true;            // each of them was the most probable
  double sum() const;
};

// Scores sequences in packed batches of about `batch_tokens`; what several of them begin with is read once. Results in
// the order of the requests; `done`, if any, is told how many are finished.
std::vector<ScoringResult> score_sequences(const LanguageModel& model, const std::vector<ScoringRequest>& requests,
                                           int64_t batch_tokens = 8192, const std::function<void(int64_t)>& done = {});

}  // namespace oryx
