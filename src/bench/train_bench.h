#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "train/recipe.h"

namespace oryx::bench {

// What `oryx bench train` measures: steps of the trainer (train/trainer.h) on random tokens.
struct TrainBenchOptions {
  std::vector<std::string> presets;  // or sizes, which stand for all kinds; empty: tiny to 180m, on a GPU 180m, 1.4b
  int64_t length = 0, batch = 0;     // tokens of a sequence and of a step; 0: 1024 and 4096, on a GPU 4096 and 32768
  std::string mixing = "random";     // strategy, of models with two mixers
  std::string precision = "bf16";    // | "fp32"
  std::vector<std::string> set;      // any other key of the recipe: table.key=value
  double budget_s = 20;              // of samples for each preset; at least 3, at most 15
  std::string trace;                 // file for a Chrome trace of one step, of the one preset; empty: none
  bool quick = false;                // short sequences: to see that everything runs

  // Fills in what is empty. InputError for an unknown name or a size that makes no sense.
  void complete(c10::Device device);
};

// Trains each preset until its samples are taken, one after another. Returns
//   device, threads, others_busy_cores, ceilings, ceilings_after (as bench_ops), formula,
//   rows [{preset, mixing, precision, T, batch_tokens, parameters (without embeddings), attention_fraction,
//         flops_per_token, ms, spread, samples, tokens_per_s, gflops, fraction_of_ceiling, peak_bytes}],
//   trace (as stop_trace) if one was asked for
// ms is the median time of a step, from one optimizer update to the next, data and all; peak_bytes what the process
// (on a GPU: the allocator) takes beyond what was there before the model. InputErrors of the recipe are the caller's.
Json bench_train(const TrainBenchOptions& options, c10::Device device);

// A step of the first preset alone, without ceilings: its median time, and its flops by the same formula; nothing
// when a signal ended it.
struct StepTime {
  double seconds, flops;
};
std::optional<StepTime> time_steps(const TrainBenchOptions& options, c10::Device device);

// Of a token of the recipe, forward and backward (twice the forward), when mixing gives attention this part of all.
double training_flops(const Recipe& recipe, double attention_fraction);

}  // namespace oryx::bench
