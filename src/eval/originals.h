#pragma once

#include <filesystem>
#include <vector>

#include "base/json.h"

namespace oryx {

// Readers of public evaluation sets as published, one for each format: examples in the format of tasks/README.md.
// InputErrors name FILE:LINE, or the record of a file that is one JSON document.
using Records = std::vector<Json>;
using OriginalReader = Records (*)(const std::filesystem::path&);

Records read_lambada(const std::filesystem::path& path);     // OpenAI's lambada_test.jsonl
Records read_hellaswag(const std::filesystem::path& path);   // hellaswag_val.jsonl, prompts as in lm-evaluation-harness
Records read_piqa(const std::filesystem::path& path);        // valid.jsonl, and valid-labels.lst beside it
Records read_arc(const std::filesystem::path& path);         // ARC's and OpenBookQA's *.jsonl
Records read_winogrande(const std::filesystem::path& path);  // dev.jsonl
Records read_blimp(const std::filesystem::path& path);       // one paradigm's .jsonl
Records read_squad(const std::filesystem::path& path);       // dev-v1.1.json
Records read_nq_open(const std::filesystem::path& path);     // NQ-open.dev.jsonl
Records read_triviaqa(const std::filesystem::path& path);    // questions and aliases, closed book
Records read_drop(const std::filesystem::path& path);        // drop_dataset_dev.json; spans joined by a comma

}  // namespace oryx
