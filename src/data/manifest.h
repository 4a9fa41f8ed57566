#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/document_reader.h"

namespace oryx {

// manifest.json of a shard directory; while it is being made, progress.json, which also has the place to go on from.
struct Manifest {
  static constexpr const char* kFileName = "manifest.json";
  static constexpr const char* kProgressName = "progress.json";
  static constexpr size_t kMaxProblems = 100;  // named in the file; all are counted

  // What the output depends on; a run that goes on must agree with it.
  struct Options {
    std::string tokenizer_file;  // its name in the directory
    std::string tokenizer_hash;  // 16 hexadecimal digits, as in the shards
    int64_t vocab_size = 0, eos_id = 0;
    std::string text_key;
    int64_t shard_tokens = 0, max_document = 0;
    bool operator==(const Options&) const = default;
  };
  struct Input {
    std::string path, format;
    int64_t bytes = 0;   // as it lies on the disk
    std::string sha256;  // of these bytes; empty until it has been read
    int64_t documents = 0, tokens = 0, text_bytes = 0, corrupt = 0, empty = 0;
  };
  struct Shard {
    std::string file;
    int64_t documents = 0, tokens = 0, bytes = 0;
    std::string sha256;
  };

  Options options;
  std::vector<Input> inputs;
  std::vector<Shard> shards;
  std::vector<std::string> problems;  // the first of them
  // Where the next shard begins.
  size_t next_input = 0;
  DocumentPosition next;

  int64_t inputs_sum(int64_t Input::*count) const;

  Json to_json(bool with_progress) const;
  static Manifest from_json(const Json& json, const std::string& source);
};

}  // namespace oryx
