#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>

#include "base/json.h"
#include "train/recipe.h"

namespace oryx::cli {

// A line of the demo's own on standard error, apart from progress.
void say(const std::string& line);

std::string processor();  // its name as the system tells it, "" when it does not

// Trains `recipe` into RUN and leaves RUN/model. A finished run of the same recipe is not repeated, an interrupted one
// goes on from its newest checkpoint, and what another recipe left in RUN is replaced. Returns what the report shows:
// {tokens, steps, seconds, tokens_per_s, loss [{tokens, loss}], validation [{tokens, <mode>: nats}]}; seconds are those
// of training steps alone, interruptions and validation left out. Throws Interrupted after SIGINT.
Json train_stage(const std::string& name, const Recipe& recipe, const std::filesystem::path& run, at::Device device);

// Results of evaluating RUN/model in RUN/evaluations.json, one for each description of what was measured. A file made
// from other weights is dropped.
class EvaluationCache {
 public:
  explicit EvaluationCache(const std::filesystem::path& run);
  // The result kept under `settings`, or that of `measure`, which is kept.
  Json get(const Json& settings, const std::function<Json()>& measure);
  int64_t kept() const { return kept_; }          // answers from the file
  int64_t measured() const { return measured_; }  // answers from `measure`

 private:
  std::filesystem::path path_;
  Json content_;
  int64_t kept_ = 0, measured_ = 0;
};

}  // namespace oryx::cli
