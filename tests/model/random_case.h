#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/random.h"
#include "model/language_model.h"

namespace oryx {

// Property tests: `work` runs for the seeds 1 to count, everything in a case being drawn from its seed, and stops at
// the first that fails, which prints how to run it alone. ORYX_CASE=SEED in the environment runs that seed only.
void for_each_case(uint64_t count, const std::function<void(uint64_t seed)>& work);

using Tokens = std::vector<int64_t>;

// Small models of all kinds: 1 to 3 layers, grouped heads, odd head dims, every convolution width up to 5, and so on.
enum class Kind { any, both, recurrent };  // mixers: any; attention and a recurrence; at least a recurrence
ModelConfig random_config(Random& random, Kind kind = Kind::any);
// The config with head dims of at least 3. Normalising one number makes it a sign, and two a point on a circle that
// they pass the middle of all too often: steps, which neither differences nor low precision can follow.
ModelConfig without_steps(ModelConfig config);
// A model whose every weight matters: none is 1 or 0 throughout, decays go from nearly none to strong. The weights are
// bfloat16 numbers, so that models of all three compute types have the same.
LanguageModel random_model(const ModelConfig& config, uint64_t seed, at::ScalarType compute = at::kDouble);
Tokens random_tokens(Random& random, int64_t length, const ModelConfig& config);
// From 1 to `most`, often a multiple of 64 (the recurrences' chunk) or one off.
int64_t random_length(Random& random, int64_t most);
// Uniform, one switch, spans of random or fixed length, a switch at every token or around multiples of 64; sometimes
// with layers of their own. Only modes that the model has.
MixerSchedule random_schedule(Random& random, int64_t length, const ModelConfig& config);
// 1 to 6 pieces that add up to `length`, none empty.
std::vector<int64_t> random_split(Random& random, int64_t length);
int64_t pick(Random& random, const std::vector<int64_t>& from);

// Everything about a case that a failure should show.
std::string describe(const ModelConfig& config, const std::vector<MixerSchedule>& schedules);

// The hidden states of one sequence, or of those of a batch end to end; each continues its cache, if it has one.
at::Tensor run(const LanguageModel& model, const Tokens& tokens, const MixerSchedule& schedule, Cache* cache = nullptr);
at::Tensor run(const LanguageModel& model, const std::vector<Tokens>& tokens,
               const std::vector<MixerSchedule>& schedules, const std::vector<Cache*>& caches = {});
Tokens part(const Tokens& tokens, int64_t begin, int64_t end);

// |a - b| <= tolerance * max(1, |b|) for the largest difference and the largest |b|; same number of elements, finite.
::testing::AssertionResult close(const at::Tensor& a, const at::Tensor& b, double tolerance);
// The norm of a - b over that of b.
double relative_error(const at::Tensor& a, const at::Tensor& b);
// All that two caches show: same length, parts and, to a tolerance, contents; 0 means the same bits.
::testing::AssertionResult same_contents(const Cache& a, const Cache& b, const ModelConfig& config, double tolerance);

// What fp64 results of the same formulas may differ by: some thousand roundings, amplified by norms and softmaxes.
constexpr double kExact = 1e-10;

}  // namespace oryx
