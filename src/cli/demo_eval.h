#pragma once

#include <cstdint>
#include <filesystem>

#include "base/json.h"
#include "cli/options.h"

namespace oryx::cli {

// How much the demo measures.
struct DemoSizes {
  int64_t recall_examples = 512;  // sequences of the trained length, for each schedule
  int64_t long_length = 1024;     // tokens of the longest contexts
  int64_t curve_examples = 96;    // sequences for each point of accuracy against attention fraction
  int64_t sample_tokens = 128;
  size_t valid_bytes = SIZE_MAX;  // of the validation text
};

// results.json's "recall" and "text", but for their training, from RUN/model; the sample is written by the model that
// comes with the project. What was measured before is not repeated.
Json evaluate_recall_model(const std::filesystem::path& run, const DemoSizes& sizes, const Common& common);
Json evaluate_text_model(const std::filesystem::path& run, const std::filesystem::path& valid,
                         const std::filesystem::path& writer, const DemoSizes& sizes, const Common& common);

}  // namespace oryx::cli
