#include "data/prepare.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "data/corpus.h"
#include "data/encode_pipeline.h"
#include "data/manifest.h"
#include "data/sha256.h"
#include "data/token_shard.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

fs::path without_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

bool lies_within(const fs::path& path, const fs::path& directory) {
  const fs::path inner = fs::weakly_canonical(path), outer = fs::weakly_canonical(directory);
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

// What the directory will say of itself, before anything is read.
Manifest plan(const PrepareOptions& options, const std::vector<DocumentFile>& files, const Tokenizer& tokenizer) {
  Manifest manifest;
  manifest.options = {tokenizer.file_name(),
                      fmt::format("{:016x}", tokenizer.hash()),
                      tokenizer.vocab_size(),
                      tokenizer.eos_id(),
                      options.text_key,
                      options.shard_tokens,
                      static_cast<int64_t>(options.max_document)};
  for (const DocumentFile& file : files) {
    Manifest::Input& input = manifest.inputs.emplace_back();
    input.path = file.path.generic_string();
    input.format = file.format == TextFormat::text ? "text" : "jsonl";
    input.bytes = file.bytes;
  }
  return manifest;
}

// InputError when `found`, in `where`, was not made as `wanted` would be.
void require_same(const Manifest& found, const Manifest& wanted, const fs::path& where) {
  const auto differ = [&](std::string_view what) {
    input_error("{} was made with {}; name another directory, or remove it", where.string(), what);
  };
  if (found.options.tokenizer_hash != wanted.options.tokenizer_hash) differ("another tokenizer");
  if (!(found.options == wanted.options)) differ("another text key or shard size");
  const auto same = [](const Manifest::Input& a, const Manifest::Input& b) {
    return a.path == b.path && a.format == b.format && a.bytes == b.bytes;
  };
  const auto [a, b] =
      std::mismatch(found.inputs.begin(), found.inputs.end(), wanted.inputs.begin(), wanted.inputs.end(), same);
  if (a != found.inputs.end() || b != wanted.inputs.end())
    differ("other files: " + (b != wanted.inputs.end() ? b->path : a->path) + " is not as it was");
}

class Preparation {
 public:
  explicit Preparation(const PrepareOptions& options)
      : options_(options),
        output_(without_slash(options.output)),
        partial_(output_.string() + ".partial"),
        files_(list_document_files(options.inputs)),
        tokenizer_(Tokenizer::load(options.tokenizer)),
        manifest_(plan(options, files_, tokenizer_)) {
    require(!files_.empty(), "no text to tokenize: name at least one file or directory");
    require(options.shard_tokens > 0, "shard_tokens must be positive, not {}", options.shard_tokens);
    require(!output_.empty() && output_.has_filename(), "cannot write '{}': not a name for a directory",
            options.output.string());
    for (const fs::path& input : options.inputs) {
      require(!fs::is_directory(input) || !lies_within(output_, input),
              "{} lies within the input {}; name a directory outside of it", output_.string(), input.string());
    }
  }
  Preparation(const Preparation&) = delete;
  Preparation& operator=(const Preparation&) = delete;
  ~Preparation() {
    std::error_code ignored;
    if (lock_ >= 0 && manifest_.shards.empty()) fs::remove_all(partial_, ignored);  // nothing to go on with
    if (lock_ >= 0) close(lock_);
  }

  PrepareResult run() {
    const auto begin = Clock::now();
    if (fs::exists(output_)) {
      require(options_.resume, "{} exists; choose a directory that does not", output_.string());
      const Manifest made =
          Manifest::from_json(load_json(output_ / Manifest::kFileName), (output_ / Manifest::kFileName).string());
      require_same(made, manifest_, output_);
      manifest_ = made;
      return result(begin, 0);
    }
    open_partial();
    const int64_t before = manifest_.inputs_sum(&Manifest::Input::text_bytes);
    const bool finished = tokenize(begin, before);
    if (finished) finish();
    PrepareResult out = result(begin, before);
    out.finished = finished;
    return out;
  }

 private:
  PrepareResult result(Clock::time_point begin, int64_t text_bytes_before) const {
    PrepareResult out;
    out.documents = manifest_.inputs_sum(&Manifest::Input::documents);
    out.tokens = manifest_.inputs_sum(&Manifest::Input::tokens);
    out.text_bytes = manifest_.inputs_sum(&Manifest::Input::text_bytes);
    out.corrupt = manifest_.inputs_sum(&Manifest::Input::corrupt);
    out.empty = manifest_.inputs_sum(&Manifest::Input::empty);
    out.shards = static_cast<int64_t>(manifest_.shards.size());
    out.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (lock_ >= 0) out.new_text_bytes = out.text_bytes - text_bytes_before;
    return out;
  }

  // Takes the unfinished directory for this process alone, with what it already holds.
  void open_partial() {
    std::error_code error;
    fs::create_directories(partial_, error);
    require(!error, "cannot create {}: {}", partial_.string(), error.message());
    const int descriptor = open(partial_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    require(descriptor >= 0, "cannot open {}", partial_.string());
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
      close(descriptor);
      input_error("{} is being written by another run; wait for its end, or name another directory", partial_.string());
    }
    const fs::path progress = partial_ / Manifest::kProgressName;
    if (fs::exists(progress)) {
      try {
        const Manifest made = Manifest::from_json(load_json(progress), progress.string());
        require(options_.resume,
                "{} holds an unfinished run of {} tokens; pass --resume to go on with it, or remove it",
                partial_.string(), human_count(static_cast<double>(made.inputs_sum(&Manifest::Input::tokens))));
        require_same(made, manifest_, partial_);
        for (const Manifest::Shard& shard : made.shards) {
          const auto bytes = fs::file_size(partial_ / shard.file, error);
          require(!error && static_cast<int64_t>(bytes) == shard.bytes,
                  "{} is missing or damaged; remove {} and begin again", (partial_ / shard.file).string(),
                  partial_.string());
        }
        manifest_ = made;
      } catch (...) {
        close(descriptor);
        throw;
      }
    }
    lock_ = descriptor;
    // A shard that was being written when the run before this one ended.
    for (const auto& entry : fs::directory_iterator(partial_, error)) {
      const std::string name = entry.path().filename().string();
      const bool known = name == Manifest::kProgressName ||
                         std::any_of(manifest_.shards.begin(), manifest_.shards.end(),
                                     [&](const Manifest::Shard& shard) { return shard.file == name; });
      if (!known) fs::remove(entry.path(), error);
    }
  }

  bool tokenize(Clock::time_point begin, int64_t text_bytes_before) {
    int64_t total = 0, earlier = 0;  // bytes of all files, and of those before the current one
    for (const DocumentFile& file : files_) total += file.bytes;
    for (size_t i = 0; i < manifest_.next_input; ++i) earlier += files_[i].bytes;
    Progress progress("tokenize", total, earlier);
    EncodePipeline pipeline(files_, manifest_.next_input, manifest_.next, tokenizer_,
                            {options_.text_key, options_.max_document, std::max(1, options_.threads)});
    int64_t text_bytes = text_bytes_before, tokens = manifest_.inputs_sum(&Manifest::Input::tokens);
    while (const auto batch = pipeline.next()) {
      take(*batch);
      for (const EncodedDocument& document : batch->documents) {
        text_bytes += document.text_bytes;
        tokens += document.tokens;
      }
      const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      progress.update(earlier + batch->file_bytes,
                      fmt::format("{} tokens, {:.1f} MB/s of text", human_count(static_cast<double>(tokens)),
                                  static_cast<double>(text_bytes - text_bytes_before) / 1e6 / seconds));
      if (batch->input_ended) earlier += files_[batch->input].bytes;
      if (options_.stop && options_.stop()) return false;
    }
    progress.finish();
    return true;
  }

  void take(const EncodedBatch& batch) {
    Manifest::Input& input = manifest_.inputs[batch.input];
    std::span<const int32_t> tokens = batch.tokens;
    for (const EncodedDocument& document : batch.documents) {
      at_input_ = batch.input, at_ = document.end;
      if (!document.problem.empty()) {
        problem(input, document.problem);
      } else if (document.tokens == 0) {
        ++input.empty;
      } else {
        const auto own = tokens.first(document.tokens);
        tokens = tokens.subspan(document.tokens);
        shard_.insert(shard_.end(), own.begin(), own.end());
        ++shard_documents_;
        ++input.documents;
        input.tokens += document.tokens;
        input.text_bytes += document.text_bytes;
        if (static_cast<int64_t>(shard_.size()) >= options_.shard_tokens) write_shard();
      }
    }
    if (!batch.input_ended) return;
    if (!batch.problem.empty()) problem(input, batch.problem);
    input.sha256 = batch.sha256;
    at_input_ = batch.input + 1, at_ = {};
  }

  void problem(Manifest::Input& input, const std::string& what) {
    require(!options_.strict, "{}; without --strict it is counted and left out", what);
    ++input.corrupt;
    if (manifest_.problems.size() < Manifest::kMaxProblems) manifest_.problems.push_back(what);
    if (options_.on_problem) options_.on_problem(what);
  }

  void write_shard() {
    Manifest::Shard shard;
    shard.file = fmt::format("{:05}{}", manifest_.shards.size(), kShardExtension);
    shard.documents = shard_documents_;
    shard.tokens = static_cast<int64_t>(shard_.size());
    const fs::path path = partial_ / shard.file;
    write_token_shard(path, {tokenizer_.vocab_size(), tokenizer_.eos_id(), tokenizer_.hash()}, shard_);
    shard.bytes = static_cast<int64_t>(fs::file_size(path));
    shard.sha256 = sha256_of_file(path);
    manifest_.shards.push_back(std::move(shard));
    shard_.clear();
    shard_documents_ = 0;
    manifest_.next_input = at_input_, manifest_.next = at_;
    write_file_atomically(partial_ / Manifest::kProgressName, manifest_.to_json(/*with_progress=*/true).dump(2) + "\n");
  }

  void finish() {
    if (!shard_.empty()) write_shard();
    require(!manifest_.shards.empty(), "no document to tokenize in {}{}", files_.front().path.string(),
            manifest_.problems.empty() ? "" : "; the first that was left out: " + manifest_.problems.front());
    write_file_atomically(partial_ / tokenizer_.file_name(), tokenizer_.bytes());
    write_file_atomically(partial_ / Manifest::kFileName, manifest_.to_json(/*with_progress=*/false).dump(2) + "\n");
    fs::remove(partial_ / Manifest::kProgressName);
    rename_directory(partial_, output_);
  }

  PrepareOptions options_;
  fs::path output_, partial_;
  std::vector<DocumentFile> files_;
  Tokenizer tokenizer_;
  Manifest manifest_;
  int lock_ = -1;  // the unfinished directory, locked
  std::vector<int32_t> shard_;
  int64_t shard_documents_ = 0;
  size_t at_input_ = 0;  // behind the last document in shard_
  DocumentPosition at_;
};

}  // namespace

PrepareResult prepare_token_shards(const PrepareOptions& options) {
  return Preparation(options).run();
}

}  // namespace oryx
