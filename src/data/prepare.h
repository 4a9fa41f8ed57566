#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace oryx {

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs;  // see list_document_files
  std::filesystem::path tokenizer;            // see Tokenizer::load
  std::filesystem::path output;               // the shard directory
  std::string text_key = "text";              // of a JSON line's text
  int64_t shard_tokens = int64_t{1} << 26;    // a shard is closed at the first document end after so many
  size_t max_document = size_t{16} << 20;     // bytes: longer text is cut, a longer JSON line is left out
  int threads = 1;                            // that tokenize
  bool strict = false;                        // the first corrupt line or file is an error
  bool resume = false;
  std::function<bool()> stop;                          // asks for an early end; may be empty
  std::function<void(const std::string&)> on_problem;  // a corrupt line or file, named; may be empty
};

struct PrepareResult {
  int64_t documents = 0, tokens = 0, text_bytes = 0;  // of the whole directory
  int64_t corrupt = 0, empty = 0, shards = 0;
  int64_t new_text_bytes = 0;  // read by this run
  double seconds = 0;          // of this run
  bool finished = true;        // false: options.stop ended it early
};

// Tokenizes the documents of the inputs, in order, each followed by eos, into a directory of token shards
// ("00000.tokens", ...; token_shard.h), the tokenizer's file, and manifest.json: what was read and what was written,
// with counts and SHA-256. The output is a function of the inputs and the options above `threads` alone. Memory does
// not grow with the input.
//
// Corrupt lines (no JSON, no text, not UTF-8, ...) and files whose packing is damaged are counted, named, and left out.
// Until it is whole the directory is called "OUTPUT.partial"; progress.json in it tells what finished shards were made
// of, and a run with `resume` goes on after the last of them. InputError for anything that the user can put right.
PrepareResult prepare_token_shards(const PrepareOptions& options);

}  // namespace oryx
