#include "data/encode_pipeline.h"

#include <memory>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace oryx {
namespace {

// The text of a document: all of it, or a member of its line of JSON. `where` begins every message.
std::string text_of(std::string_view document, TextFormat format, const std::string& text_key,
                    const std::string& where) {
  if (format == TextFormat::text) {
    const size_t invalid = find_invalid_utf8(document);
    require(invalid == std::string_view::npos, "{}: not UTF-8: invalid byte at offset {} of the document", where,
            invalid);
    return std::string(document);
  }
  Json line = parse_json(document, where);
  require(line.is_object(), "{}: not a JSON object", where);
  const auto text = line.find(text_key);
  require(text != line.end(), "{}: the object has no \"{}\"; --text-key names the member that holds the text", where,
          text_key);
  require(text->is_string(), "{}: \"{}\" is not a string", where, text_key);
  return std::move(text->get_ref<std::string&>());
}

}  // namespace

EncodePipeline::EncodePipeline(const std::vector<DocumentFile>& files, size_t first, DocumentPosition begin,
                               const Tokenizer& tokenizer, const Options& options)
    : files_(files),
      tokenizer_(tokenizer),
      options_(options),
      results_(2 * static_cast<size_t>(options.threads) + 2),
      work_(2 * static_cast<size_t>(options.threads) + 2) {
  threads_.emplace_back([this, first, begin] { read(first, begin); });
  for (int i = 0; i < options.threads; ++i) {
    threads_.emplace_back([this] {
      Encoder encoder(tokenizer_);
      while (auto task = work_.pop()) (*task)(encoder);
    });
  }
}

EncodePipeline::~EncodePipeline() {
  results_.close(/*drop=*/true);
  work_.close(/*drop=*/true);
}

std::optional<EncodedBatch> EncodePipeline::next() {
  auto result = results_.pop();
  if (!result) return std::nullopt;
  return result->get();
}

bool EncodePipeline::submit(Task task) {
  return results_.push(task.get_future()) && work_.push(std::move(task));
}

void EncodePipeline::read(size_t first, DocumentPosition begin) {
  try {
    for (size_t input = first; input < files_.size(); ++input) {
      if (!read_file(input, input == first ? begin : DocumentPosition{})) return;
    }
  } catch (...) {
    std::promise<EncodedBatch> failed;
    failed.set_exception(std::current_exception());
    results_.push(failed.get_future());
  }
  results_.close();
  work_.close();
}

// False when nobody waits for more.
bool EncodePipeline::read_file(size_t input, DocumentPosition begin) {
  DocumentReader reader(files_[input], begin, options_.max_document);
  std::string problem;
  try {
    for (;;) {
      auto batch = std::make_shared<const DocumentBatch>(reader.next());
      if (batch->entries.empty()) break;
      const int64_t file_bytes = reader.file_bytes();
      const bool submitted = submit(Task([this, input, batch, file_bytes](Encoder& encoder) {
        EncodedBatch encoded = encode(input, *batch, encoder);
        encoded.file_bytes = file_bytes;
        return encoded;
      }));
      if (!submitted) return false;
    }
  } catch (const InputError& error) {
    problem = error.what();
  }
  EncodedBatch end;
  end.input = input;
  end.input_ended = true;
  end.sha256 = reader.sha256();
  end.problem = problem;
  end.file_bytes = reader.file_bytes();
  return submit(Task([end](Encoder&) { return end; }));
}

EncodedBatch EncodePipeline::encode(size_t input, const DocumentBatch& batch, Encoder& encoder) const {
  const DocumentFile& file = files_[input];
  EncodedBatch out;
  out.input = input;
  out.documents.reserve(batch.entries.size());
  for (const DocumentBatch::Entry& entry : batch.entries) {
    EncodedDocument& document = out.documents.emplace_back();
    document.end = entry.end;
    const std::string where = fmt::format("{}:{}", file.path.string(), entry.line);
    try {
      require(!entry.too_long, "{}: the line is longer than {} bytes", where, options_.max_document);
      const std::string text = text_of(batch.text(entry), file.format, options_.text_key, where);
      if (text.empty()) continue;
      const size_t before = out.tokens.size();
      encoder.encode(text, out.tokens);
      out.tokens.push_back(tokenizer_.eos_id());
      document.tokens = static_cast<int64_t>(out.tokens.size() - before);
      document.text_bytes = static_cast<int64_t>(text.size());
    } catch (const InputError& error) {
      document.problem = error.what();
    }
  }
  return out;
}

}  // namespace oryx
