#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/batch.h"
#include "generate/gate.h"

namespace oryx {

struct GateTrainingOptions {
  int64_t tokens = 1'000'000;  // to be read, twice each
  int64_t width = 64;          // of the gate
  double lr = 2e-3;            // falls to 0 linearly
  uint64_t seed = 0;
};

// How well the gate foretells, on the last quarter of the batches, each before the gate learned from it.
struct GateTrainingReport {
  int64_t tokens = 0;
  double mean_gain = 0;  // nats per token
  // Of the tokens that the gate expects most of, and of those that gain most, by their fraction: their part of the
  // gain of all tokens.
  std::map<std::string, double> caught, best;
  Json to_json() const;
};

// Gathers what was expected and what was seen for such a report.
class GateRecord {
 public:
  void add(const at::Tensor& expected, const at::Tensor& gain);  // [N] each
  GateTrainingReport report(int64_t tokens) const;               // something must have been added

 private:
  std::vector<at::Tensor> expected_, gains_;
};

// Of a batch's tokens, whose final states in recurrence are `hidden` [N, D].
ReadTokens read_tokens(const Batch& batch, const at::Tensor& hidden);

// InputError for a model with one mixer, which leaves a gate nothing to choose.
void require_two_mixers(const ModelConfig& config);

// Trains a gate for a model, whose weights stay as they are: AdamW on the squared error of the expected gain, which is
// each token's loss in recurrence less that in attention, both through the whole sequence; a token without a target
// gains nothing. InputError for a model with one mixer.
std::pair<Gate, GateTrainingReport> train_gate(const LanguageModel& model, const BatchSource& data,
                                               const GateTrainingOptions& options);

}  // namespace oryx
