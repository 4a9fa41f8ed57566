#include "data/document_reader.h"

#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "base/text.h"
#include "data/text_file.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBytes = 1 << 18;

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// ".txt" of "a.txt.zst"
std::string inner_extension(const fs::path& path) {
  const fs::path name = path.filename();
  const bool packed = name.extension() == ".zst" || name.extension() == ".gz";
  return (packed ? name.stem() : name).extension().string();
}

DocumentFile document_file(const fs::path& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  require(!error, "cannot read {}: {}", path.string(), error.message());
  const bool jsonl = is_one_of(inner_extension(path), {".jsonl", ".ndjson", ".json"});
  return {path, jsonl ? TextFormat::jsonl : TextFormat::text, static_cast<int64_t>(bytes)};
}

}  // namespace

std::vector<DocumentFile> list_document_files(const std::vector<fs::path>& inputs) {
  std::vector<DocumentFile> files;
  for (const fs::path& input : inputs) {
    std::error_code error;
    if (!fs::is_directory(input, error)) {
      files.push_back(document_file(input));
      continue;
    }
    std::vector<fs::path> found;
    for (fs::recursive_directory_iterator it(input, error), end; !error && it != end; it.increment(error)) {
      const bool wanted = is_one_of(inner_extension(it->path()), {".txt", ".text", ".md", ".jsonl", ".ndjson"});
      if (wanted && it->is_regular_file()) found.push_back(it->path());
    }
    require(!error, "cannot read the directory {}: {}", input.string(), error.message());
    require(!found.empty(), "{} holds no files of text (.txt, .text, .md, .jsonl, .ndjson, perhaps .zst or .gz)",
            input.string());
    std::sort(found.begin(), found.end());
    for (const fs::path& path : found) files.push_back(document_file(path));
  }
  return files;
}

DocumentReader::DocumentReader(const DocumentFile& file, DocumentPosition begin, size_t max_document)
    : reader_(file.path), format_(file.format), max_document_(max_document), at_(begin), line_number_(begin.line) {
  std::string skipped(kReadBytes, '\0');
  for (int64_t left = begin.offset; left > 0;) {
    const size_t count = reader_.read(skipped.data(), static_cast<size_t>(std::min<int64_t>(left, kReadBytes)));
    require(count > 0, "{} has become shorter since its reading began", file.path.string());
    left -= static_cast<int64_t>(count);
  }
}

bool DocumentReader::read_more() {
  const size_t size = buffer_.size();
  buffer_.resize(size + kReadBytes);
  size_t count = 0;
  try {
    count = reader_.read(buffer_.data() + size, kReadBytes);
  } catch (...) {
    buffer_.resize(size);
    throw;
  }
  buffer_.resize(size + count);
  return count > 0;
}

// The document [begin_, end), after which the reading goes on at `next`.
void DocumentReader::emit(DocumentBatch& batch, size_t end, size_t next, bool too_long) {
  const int64_t first_line = at_.line;
  at_.offset += static_cast<int64_t>(next - begin_);
  at_.line = line_number_;
  const std::string_view body = without_line_end(std::string_view(buffer_).substr(begin_, end - begin_));
  if (too_long || !body.empty()) {
    const size_t length = too_long ? 0 : body.size();
    batch.entries.push_back({batch.bytes.size(), length, first_line, at_, too_long});
    batch.bytes.append(body, 0, length);
  }
  begin_ = line_ = next;
}

// Ends a document that is too long at its last line end, or else between two characters.
void DocumentReader::cut(DocumentBatch& batch) {
  size_t end = line_;
  if (end == begin_) {
    end = begin_ + max_document_;
    for (int i = 0; i < 3 && (static_cast<unsigned char>(buffer_[end]) & 0xc0) == 0x80; ++i) --end;
  }
  emit(batch, end, end);
}

void DocumentReader::take_text(DocumentBatch& batch) {
  size_t searched = line_;
  while (batch.bytes.size() < kBatchBytes) {
    const size_t line_end = buffer_.find('\n', searched);
    if (line_end == std::string::npos && !ended_) {
      if (buffer_.size() - begin_ > max_document_) {
        cut(batch);
        searched = line_;
      } else {
        searched = buffer_.size();
        ended_ = !read_more();
      }
      continue;
    }
    const size_t next = line_end == std::string::npos ? buffer_.size() : line_end + 1;
    const bool separator =
        without_line_end(std::string_view(buffer_).substr(line_, next - line_)) == kDocumentSeparator;
    if (line_end != std::string::npos) ++line_number_;
    if (separator) {
      emit(batch, line_, next);
    } else if (line_end == std::string::npos || next - begin_ >= max_document_) {
      emit(batch, next, next);
    } else {
      line_ = next;
    }
    searched = line_;
    if (line_end == std::string::npos) return;
  }
}

void DocumentReader::take_lines(DocumentBatch& batch) {
  size_t searched = begin_;
  while (batch.bytes.size() < kBatchBytes) {
    const size_t line_end = buffer_.find('\n', searched);
    if (line_end == std::string::npos && !ended_) {
      if (buffer_.size() - begin_ > max_document_) {
        skipping_ = true;
        at_.offset += static_cast<int64_t>(buffer_.size() - begin_);
        buffer_.clear();
        begin_ = line_ = 0;
      }
      searched = buffer_.size();
      ended_ = !read_more();
      continue;
    }
    const size_t next = line_end == std::string::npos ? buffer_.size() : line_end + 1;
    if (line_end != std::string::npos) ++line_number_;
    const bool blank = trim(std::string_view(buffer_).substr(begin_, next - begin_)).empty();
    const bool too_long = skipping_ || next - begin_ > max_document_;
    emit(batch, blank ? begin_ : next, next, too_long);
    skipping_ = false;
    searched = begin_;
    if (line_end == std::string::npos) return;
  }
}

DocumentBatch DocumentReader::next() {
  DocumentBatch batch;
  if (failure_) std::rethrow_exception(failure_);
  try {
    if (format_ == TextFormat::text) {
      take_text(batch);
    } else {
      take_lines(batch);
    }
  } catch (const InputError&) {
    if (batch.entries.empty()) throw;
    failure_ = std::current_exception();  // first what was read before it
  }
  buffer_.erase(0, begin_);
  line_ -= begin_;
  begin_ = 0;
  return batch;
}

}  // namespace oryx
