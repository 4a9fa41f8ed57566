#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"

namespace oryx {

// One question of a task, as a line of a data file (tasks/README.md):
//   multiple choice       {"id"?, "context", "choices": [...], "answer": index from 0, "continuation"?}
//   completion, retrieval {"id"?, "context", "question", "answers": [...]}
struct Example {
  std::string id;  // the line's number when the record has none
  std::string context, question;
  std::vector<std::string> choices;
  int64_t answer = -1;               // of `choices`
  std::vector<std::string> answers;  // all that count as right; the first is the reference
  std::string continuation;          // scored after each choice, where choices stand within the text (WinoGrande)
  Json fields = Json::object();      // whatever else the record holds: title, uid, ...
  std::string where;                 // "FILE:LINE", begins messages about this example
};

// JSON lines, perhaps packed (.zst, .gz), separated by the byte 0x0A alone. InputErrors name FILE:LINE and the key: a
// wrong type, "answer" outside "choices", neither "choices" nor "answers", no example at all.
std::vector<Example> read_examples(const std::filesystem::path& path);

}  // namespace oryx
