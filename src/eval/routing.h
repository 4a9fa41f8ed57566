#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "generate/policy.h"
#include "model/language_model.h"
#include "model/schedule.h"

namespace oryx {

// The tokens of one example, in the order in which they are read.
struct RoutedSequence {
  std::vector<int64_t> tokens;
  int64_t question_begin = 0;  // first token of the question; what follows it is question and answer
  int64_t generated = 0;       // tokens that will be generated after these, at most
  int64_t given = 0;           // the first so many are known before anything is predicted
};

// Decides which mixer serves each token of an example: a schedule, a placement of attention, a policy.
class Routing {
 public:
  virtual ~Routing() = default;
  // One schedule for each sequence, of its tokens and those generated. A decision may look at all sequences of the
  // call.
  virtual std::vector<MixerSchedule> route(const LanguageModel& model,
                                           const std::vector<RoutedSequence>& sequences) const = 0;
  virtual std::string text() const = 0;  // as the user wrote it
};

// `schedule` followed by `more` tokens that are served as its last one is.
MixerSchedule extended(const MixerSchedule& schedule, int64_t more);

// A schedule as text (CONTRACT section 2), or "question": attention for the question and the answer alone. Positions
// beyond the end of a short example are no error. Generated tokens are served as the prompt's last one where the
// schedule counts from the prompt's end.
std::unique_ptr<Routing> make_routing(const std::string& text, const ModelConfig& config);

// Attention for ceil(fraction * length) tokens of each sequence, recurrence for the others:
//   tail, head  the last, the first
//   question    the question and the answer, whatever the fraction
//   random      chunks of 16 tokens drawn from `seed` and the sequence's length
//   every       one token in 1 / fraction, evenly spread
struct Placement {
  std::string where = "tail";
  double fraction = 0;
  uint64_t seed = 0;
};
inline constexpr const char* kPlacements[] = {"tail", "head", "question", "random", "every"};
MixerSchedule place_attention(const Placement& placement, int64_t length, int64_t question_begin);
std::unique_ptr<Routing> make_routing(const Placement& placement);

// `where` of a sweep: a placement, or a policy as NAME[:CHUNK], for which `directory` is the model's.
std::unique_ptr<Routing> make_routing(const Placement& placement, const std::filesystem::path& directory,
                                      const LanguageModel& model);
bool is_policy(std::string_view where);

// The policy's choice. Tokens to be generated get attention while any is left of what the prompt saved, unseen.
std::unique_ptr<Routing> make_routing(std::unique_ptr<Policy> policy);

}  // namespace oryx
