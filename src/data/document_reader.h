#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/byte_reader.h"

namespace oryx {

enum class TextFormat : uint8_t { text, jsonl };

// A file of documents: text with lines of kDocumentSeparator between them (text_file.h), or one JSON object a line.
struct DocumentFile {
  std::filesystem::path path;
  TextFormat format = TextFormat::text;
  int64_t bytes = 0;  // as it lies on the disk
};

// The files that `inputs` name: each file as given, each directory's files in order of their paths, recursively, as far
// as their names end in .txt, .text, .md (text), .jsonl, .ndjson (one JSON object a line), perhaps followed by .zst or
// .gz. Of files given by themselves .json is JSON lines too, and any other name is text. InputError for what does not
// exist and for a directory without such files.
std::vector<DocumentFile> list_document_files(const std::vector<std::filesystem::path>& inputs);

// Where a document ends: what a resumed reading begins with. Counted in the unpacked file.
struct DocumentPosition {
  int64_t offset = 0;  // bytes
  int64_t line = 1;    // of the byte at `offset`
  bool operator==(const DocumentPosition&) const = default;
};

// Consecutive documents of one file, about kBatchBytes of them.
struct DocumentBatch {
  struct Entry {
    size_t begin, length;  // in `bytes`: the document, or its line of JSON
    int64_t line;          // where it begins
    DocumentPosition end;  // behind it
    bool too_long;         // a line of JSON beyond the limit: left out
  };
  std::string bytes;
  std::vector<Entry> entries;

  std::string_view text(const Entry& entry) const { return std::string_view(bytes).substr(entry.begin, entry.length); }
};

// Reads a file of documents in memory that depends on the longest document alone. Text without separators is cut into
// documents of at most `max_document` bytes, at line ends where there are any.
class DocumentReader {
 public:
  static constexpr size_t kBatchBytes = size_t{1} << 20;
  DocumentReader(const DocumentFile& file, DocumentPosition begin, size_t max_document);
  // The next documents; an empty batch at the end. Errors as ByteReader's; what was read before them has been returned.
  DocumentBatch next();
  int64_t file_bytes() const { return reader_.file_bytes(); }
  std::string sha256() { return reader_.sha256(); }  // of the file; ends the reading

 private:
  bool read_more();
  void take_text(DocumentBatch& batch);
  void take_lines(DocumentBatch& batch);
  void cut(DocumentBatch& batch);
  void emit(DocumentBatch& batch, size_t end, size_t next, bool too_long = false);

  ByteReader reader_;
  TextFormat format_;
  size_t max_document_;
  std::string buffer_;
  size_t begin_ = 0, line_ = 0;  // in buffer_: the current document and the line that is looked at
  DocumentPosition at_;          // of begin_
  int64_t line_number_;          // of line_
  bool ended_ = false, skipping_ = false;
  std::exception_ptr failure_;
};

}  // namespace oryx
