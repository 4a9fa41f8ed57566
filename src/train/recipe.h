#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/recall.h"
#include "data/synthetic.h"
#include "model/config.h"
#include "train/mixing.h"

namespace oryx {

// What a recipe (TOML, CONTRACT section 1) says, with every default filled in.
struct Recipe {
  // [model]: a preset, config.json's keys, or a preset or another model's `weights` with some keys replaced. vocab_size
  // follows the data when the table does not give it.
  ModelConfig model;
  bool vocab_given = false;
  std::string weights;  // a model directory that training begins with, its config in place of a preset; empty: random

  // Where training sequences come from: one of recall, text, shards.
  struct Source {
    std::optional<RecallTask> recall;       // task = "recall" with pairs, length, vocab, power_a, placement
    std::vector<std::string> text, shards;  // files (perhaps packed); directories of token shards
  };
  // One of a mixture may also be another task.
  struct WeightedSource : Source {
    std::optional<SyntheticTask> synthetic;  // task = "copy", "phone_book", "needle", "random"
    double weight = 1;
  };

  // [data]: one source, or [[data.sources]], each with its weight.
  struct Data : Source {
    std::vector<WeightedSource> sources;
    std::vector<std::string> valid;  // text files for validation; empty: none
    // tokenizer.model, tokenizer.json, or a directory with one; empty: that of the first shards, or of the model whose
    // weights are taken, or else learned from the text with `vocab` pieces.
    std::string tokenizer;
    int64_t vocab = 4096;
    int64_t context = 1024;  // tokens of a training sequence; recall: its length
  } data;

  MixingConfig mixing;

  // [train]
  struct Train {
    int64_t tokens = 0;                 // budget; required
    int64_t batch_tokens = 0;           // a step's tokens; required, a multiple of the context
    int64_t micro_batch_tokens = 0;     // run at once (twice of that with mixing.both), gradients added up; 0: all
    double lr = 1e-3, min_lr = 0.1;     // min_lr: a fraction of lr, reached at the end
    std::string schedule = "cosine";    // | "wsd" | "linear" | "constant"
    double warmup = 0.02, decay = 0.2;  // steps, or below 1 a fraction of all; decay: the D of wsd
    std::string optimizer = "adamw";    // | "muon": for the layers' matrices, with AdamW for the rest
    double weight_decay = 0.1, beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
    double momentum = 0.95;  // muon
    double clip = 1.0;       // gradients' largest norm; 0: off
    int64_t seed = 0;
    std::string precision = "fp32";          // | "bf16": compute; weights and moments stay fp32
    int64_t log_every = 10, eval_every = 0;  // steps; 0: at the end only
    int64_t checkpoint_every = 0;            // steps that a kill loses at most; 0: only the end is saved
    bool recompute = false;                  // layers again in the backward pass: a third more time, far less memory
    int64_t eval_tokens = 65536, keep = 2;   // of validation; newest checkpoints kept, beside the best
    int64_t nonfinite_limit = 10;            // steps in a row without a finite loss and gradient end the run; 0: never
    double outlier_z = 6;                    // deviations above the mean at which a step is reported; 0: none is
  } train;

  // Relative paths in the recipe are taken from `base`, the recipe's folder. InputErrors begin with `source`.
  static Recipe from_json(const Json& json, const std::string& source, const std::filesystem::path& base);
  Json to_json() const;  // resolved: every key
  // The first key, as "train.lr", in which what to_json says now differs from what it wrote, perhaps of an earlier
  // program: keys that it did not have have their defaults. Keys in `ignored` may differ.
  struct Difference {
    std::string key;
    Json before, now;
  };
  static std::optional<Difference> difference(const Json& written, const std::string& source, const Json& now,
                                              const std::set<std::string>& ignored);

  int64_t steps() const { return (train.tokens + train.batch_tokens - 1) / train.batch_tokens; }
};

// Learning rate of step `step` (from 0) of `steps`.
double learning_rate(const Recipe::Train& train, int64_t step, int64_t steps);

}  // namespace oryx
