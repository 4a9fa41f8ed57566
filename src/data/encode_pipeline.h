#pragma once

#include <cstdint>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "data/bounded_queue.h"
#include "data/document_reader.h"
#include "data/tokenizer.h"

namespace oryx {

// What became of one document of the input.
struct EncodedDocument {
  int64_t tokens = 0;  // eos included; 0 when it was left out
  int64_t text_bytes = 0;
  std::string problem;   // why it was left out, with its file and line; "" for a document without text
  DocumentPosition end;  // behind it
};

struct EncodedBatch {
  size_t input = 0;
  std::vector<int32_t> tokens;  // of all documents
  std::vector<EncodedDocument> documents;
  // The last batch of an input holds no documents, but:
  bool input_ended = false;
  std::string sha256, problem;  // of the whole file; why it could not be read to its end
  int64_t file_bytes = 0;       // of the input, read so far
};

// Reads files on one thread, tokenizes their documents on `threads` others, and gives the results back in the files'
// order. A bounded number of batches is in memory at any time.
class EncodePipeline {
 public:
  struct Options {
    std::string text_key;
    size_t max_document;
    int threads;
  };
  // Begins with document `begin` of files[first]; both must outlive the object.
  EncodePipeline(const std::vector<DocumentFile>& files, size_t first, DocumentPosition begin,
                 const Tokenizer& tokenizer, const Options& options);
  EncodePipeline(const EncodePipeline&) = delete;
  EncodePipeline& operator=(const EncodePipeline&) = delete;
  ~EncodePipeline();  // does not wait for the end of the input

  // Nothing at the end of the last file. Throws what a thread threw.
  std::optional<EncodedBatch> next();

 private:
  using Task = std::packaged_task<EncodedBatch(Encoder&)>;
  void read(size_t first, DocumentPosition begin);
  bool read_file(size_t input, DocumentPosition begin);
  bool submit(Task task);
  EncodedBatch encode(size_t input, const DocumentBatch& batch, Encoder& encoder) const;

  const std::vector<DocumentFile>& files_;
  const Tokenizer& tokenizer_;
  Options options_;
  BoundedQueue<std::future<EncodedBatch>> results_;
  BoundedQueue<Task> work_;
  std::vector<std::jthread> threads_;
};

}  // namespace oryx
