#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "model/schedule.h"

namespace oryx {

// The recipe's [mixing] table: which mode serves which token of a training sequence (DESIGN section 3).
struct MixingConfig {
  // "random": chunks, each given attention with a probability drawn per sequence; "attention", "recurrent";
  // "alternate": chunks in turn, recurrent first; "switch_once": recurrent up to a random token, attention from there;
  // "tail": attention for the last `fraction` of the sequence; "schedule": always `schedule`, such as
  // "*=recurrent;3,7=attention", the usual hybrid with attention in every fourth layer; "mixture": one of the others
  // per sequence, by `weights`; "phases": one after the other as the budget is spent.
  std::string strategy = "random";
  int64_t chunk = 0;                                    // tokens; 0: the smaller of 256 and context / 16
  double low = 0, high = 1;                             // random: the probability's range
  double fraction = 0.1;                                // tail
  std::string schedule;                                 // schedule: as text, one that suits any length
  std::vector<std::pair<std::string, double>> weights;  // mixture
  struct Phase;
  std::vector<Phase> phases;  // phases, in the order of their ends
  // Every sequence twice in a batch, the second time with the mixers exchanged: each token is learned in both modes.
  // Tokens are counted once; time and memory are those of two passes. No effect on a model with one mixer.
  bool both = false;
  // Which part of the recurrence's gradient reaches the keys that both mixers read: below 1 attention has more of a say
  // in what keys are. In [0, 1]; no effect on a model with one mixer.
  double key_gradient = 1;

  static MixingConfig read(Fields fields);  // InputErrors name the key
  Json to_json() const;
};

struct MixingConfig::Phase {
  double until = 1;  // the part of the token budget at which the phase ends; the last one's is 1
  MixingConfig mixing;
};

// Maps (seed, step, sequence) to a schedule. A pure function, so that a resumed run mixes as the whole one; `progress`
// is the part of the token budget that is spent, for strategies that change as training goes on.
class MixingStrategy {
 public:
  virtual ~MixingStrategy() = default;
  virtual MixerSchedule schedule(uint64_t seed, int64_t step, int64_t sequence, int64_t length,
                                 double progress) const = 0;
};

// For a model with one mixer every strategy becomes that mixer. `context` sets the default chunk. InputError when the
// strategy names a mode that the model lacks.
std::unique_ptr<MixingStrategy> make_mixing(const MixingConfig& config, const ModelConfig& model, int64_t context);

// Passes over a sequence in one step: 2 where `both` applies.
int64_t passes(const MixingConfig& config, const ModelConfig& model);

}  // namespace oryx
