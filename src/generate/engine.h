#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "generate/sequence_router.h"
#include "model/language_model.h"
#include "model/schedule.h"

namespace oryx {

struct SamplingOptions {
  double temperature = 0;  // 0: the most probable token
  uint64_t seed = 0;       // the draw at a position depends on the seed and the position alone
};

struct GeneratedToken {
  int64_t id;
  int64_t position;  // from the start of the prompt
  // The mixer that wrote it: the one that served the token before, from whose output this one was drawn.
  Mode mode;
  double logprob;  // natural, of the model (before temperature)
};

// Continues one sequence token by token, keeping a key/value cache and a recurrent state side by side. A router that
// stops attending for good lets keys and values go, one that stops recurring lets the state go.
class Generator {
 public:
  // Runs the prompt (at least one token). `schedule` covers the prompt and all tokens that will be asked for
  // (ScheduleSpec::resolve_open).
  Generator(const LanguageModel& model, const std::vector<int64_t>& prompt, MixerSchedule schedule,
            SamplingOptions options);

  // Likewise with modes that `router` chooses on the way.
  Generator(const LanguageModel& model, const std::vector<int64_t>& prompt, std::unique_ptr<SequenceRouter> router,
            SamplingOptions options);

  // The next token. It is fed back when the one after it is asked for. InputError past the schedule's end.
  GeneratedToken next();

  int64_t cache_bytes() const { return cache_.bytes(); }
  const Cache& cache() const { return cache_; }
  double attention_fraction() const { return attended_ / static_cast<double>(cache_.length()); }  // of the tokens read

 private:
  void feed(const std::vector<int64_t>& tokens);
  void drop_what_is_over();
  int64_t choose(const at::Tensor& logits) const;

  const LanguageModel& model_;
  std::unique_ptr<SequenceRouter> router_;
  SamplingOptions options_;
  Cache cache_;
  at::Tensor logits_;            // [V], after the last token fed
  Mode mode_ = Mode::attention;  // of the last token fed
  double attended_ = 0;
  std::optional<int64_t> pending_;
};

}  // namespace oryx
