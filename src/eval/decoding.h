#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/language_model.h"
#include "model/schedule.h"

namespace oryx {

struct DecodingRequest {
  std::vector<int64_t> prompt;  // at least one token
  MixerSchedule schedule;       // of the prompt and the tokens that may follow
};

// The most probable continuations, in batches of ragged prompts of about `batch_tokens`; common beginnings are read
// once. A continuation ends where its request's schedule does, or with the token after which `ends` says so; `done`,
// if any, is told how many have ended.
std::vector<std::vector<int64_t>> decode_greedily(
    const LanguageModel& model, const std::vector<DecodingRequest>& requests,
    const std::function<bool(size_t request, const std::vector<int64_t>& continuation)>& ends,
    int64_t batch_tokens = 8192, const std::function<void(int64_t)>& done = {});

}  // namespace oryx
