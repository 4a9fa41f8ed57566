#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "generate/sequence_router.h"
#include "model/language_model.h"
#include "model/schedule.h"

namespace oryx {

// A sequence whose tokens want a mixer each.
struct RoutingRequest {
  std::vector<int64_t> tokens;
  // The first `given` tokens are known as a whole, as a prompt is: their modes may depend on any of them. Tokens from
  // there on are only to be read one after another: their modes may depend on themselves and those before. What is to
  // be predicted must not be among the given ones.
  int64_t given = 0;
  // What each token should predict (-100: nothing), for the oracle only; empty: the token after it.
  std::vector<int64_t> targets;
  // Text is generated from these tokens: nobody uses what the first `unused` predict, that is all of a prompt but its
  // last. They stay in recurrence, and those from there on are decided one after another, whatever is `given`.
  int64_t unused = 0;
  // So many more are to be generated at most. Of them nothing is known yet; the schedule covers them.
  int64_t generated = 0;
};

// Decides which mixer serves which token: a schedule fixed beforehand, or a choice that looks at the text.
class Policy {
 public:
  virtual ~Policy() = default;
  // One schedule for each request, of all its tokens and those to be generated.
  virtual std::vector<MixerSchedule> route(const LanguageModel& model,
                                           const std::vector<RoutingRequest>& requests) const = 0;
  // For generating a sequence of at most `length` tokens. A choice made on the way is the one that route() makes for
  // the finished sequence, of which all of the prompt but its last token is `unused`. Model and policy must outlive the
  // router. InputError from what needs to know the end: the oracle, and schedules that resolve_open() refuses.
  virtual std::unique_ptr<SequenceRouter> start(const LanguageModel& model, int64_t length) const = 0;
  virtual const std::string& text() const = 0;
};

std::unique_ptr<Policy> schedule_policy(ScheduleSpec spec);

inline constexpr const char* kPolicies[] = {"entropy", "margin", "gate", "oracle"};

// A policy that reads the text with the recurrence alone first, which costs one more recurrent pass over all tokens,
// and gives attention to the FRACTION of the tokens with the highest score, CHUNK tokens at a time (default 16; see
// generate/routing.h). Only tokens up to the one that is scored are seen, never what it should predict.
// In generation the budget of the prompt goes to the tokens from which text is generated.
//   entropy:FRACTION[:CHUNK]   of the recurrence's prediction
//   margin:FRACTION[:CHUNK]    1 - (probability of its first choice - that of its second)
//   gate:FRACTION[:CHUNK]      what DIRECTORY/gate.safetensors expects attention to gain (generate/gate.h)
//   oracle:FRACTION[:CHUNK]    the true gain, loss in recurrence less that in attention: a bound; all tokens are given
// InputError for anything else, a model with one mixer, and a gate that is not there.
std::unique_ptr<Policy> make_policy(std::string_view text, const std::filesystem::path& directory,
                                    const LanguageModel& model);

}  // namespace oryx
