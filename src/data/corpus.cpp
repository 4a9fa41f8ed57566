#include "data/corpus.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.h"
#include "data/text_file.h"

namespace oryx {

std::vector<std::vector<int32_t>> tokenize_file(const std::filesystem::path& file, const Tokenizer& tokenizer) {
  const std::string text = read_utf8_file(file);
  const auto documents = split_documents(text);
  require(!documents.empty(), "{}: no text in it", file.string());
  std::vector<std::vector<int32_t>> ids(documents.size());
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&] {
    try {
      for (size_t i; (i = next++) < documents.size();) {
        ids[i] = tokenizer.encode(documents[i]);
        ids[i].push_back(tokenizer.eos_id());
      }
    } catch (...) {
      next = documents.size();
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  };
  const size_t threads = std::min<size_t>(std::max(1u, std::thread::hardware_concurrency()), documents.size());
  {
    std::vector<std::jthread> pool;
    for (size_t i = 1; i < threads; ++i) pool.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return ids;
}

std::vector<std::filesystem::path> list_token_shards(const std::filesystem::path& directory) {
  std::error_code error;
  std::vector<std::filesystem::path> paths;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == kShardExtension) paths.push_back(it->path());
  }
  require(!error, "cannot read the shard directory {}: {}", directory.string(), error.message());
  require(!paths.empty(), "{} holds no token shards (*{})", directory.string(), kShardExtension);
  std::sort(paths.begin(), paths.end());
  return paths;
}

TokenCorpus TokenCorpus::from_text(const std::vector<std::filesystem::path>& files, const Tokenizer& tokenizer) {
  require(!files.empty(), "no text to read: name at least one file");
  TokenCorpus corpus(tokenizer.vocab_size(), tokenizer.eos_id());
  for (const auto& file : files) corpus.add(tokenize_file(file, tokenizer), file.string());
  return corpus;
}

TokenCorpus TokenCorpus::from_shards(const std::vector<std::filesystem::path>& directories,
                                     const Tokenizer& tokenizer) {
  require(!directories.empty(), "no token shards to read: name at least one directory");
  TokenCorpus corpus(tokenizer.vocab_size(), tokenizer.eos_id());
  for (const auto& directory : directories) {
    for (const auto& path : list_token_shards(directory)) {
      const auto shard = std::make_shared<const TokenShard>(path, ShardCheck::sizes);
      const TokenShardHeader& header = shard->header();
      require(header.tokenizer_hash == tokenizer.hash() && header.vocab_size == tokenizer.vocab_size() &&
                  header.eos_id == tokenizer.eos_id(),
              "{}: made by another tokenizer (hash {:016x}, vocabulary {}) than the one in use ({:016x}, {})",
              path.string(), header.tokenizer_hash, header.vocab_size, tokenizer.hash(), tokenizer.vocab_size());
      corpus.add(shard->tokens(), shard, path.string());
    }
  }
  require(corpus.size_ > 0, "the token shards hold no document");
  return corpus;
}

TokenCorpus TokenCorpus::from_documents(const std::vector<std::vector<int32_t>>& documents, int64_t vocab_size,
                                        int32_t eos_id) {
  TokenCorpus corpus(vocab_size, eos_id);
  corpus.add(documents, "the documents");
  require(!corpus.documents().empty(), "no document of at least one token");
  return corpus;
}

void TokenCorpus::add(const std::vector<std::vector<int32_t>>& documents, std::string name) {
  std::vector<int32_t> tokens;
  for (const auto& document : documents) tokens.insert(tokens.end(), document.begin(), document.end());
  const auto packed = std::make_shared<const std::vector<std::byte>>(pack_tokens(tokens, vocab_size_));
  add({packed->data(), token_width(vocab_size_), static_cast<int64_t>(tokens.size())}, packed, std::move(name));
}

void TokenCorpus::add(TokenSpan tokens, std::shared_ptr<const void> owner, std::string name) {
  if (tokens.count == 0) return;
  require(tokens[tokens.count - 1] == eos_id_, "{}: damaged: the last document does not end with eos", name);
  segments_.push_back({size_, tokens, std::move(name), std::move(owner)});
  size_ += tokens.count;
}

std::vector<TokenCorpus::Document> TokenCorpus::documents() const {
  std::vector<Document> documents;
  for (const Segment& segment : segments_) {
    int64_t begin = 0;
    for (int64_t i = 0; i < segment.tokens.count; ++i) {
      if (segment.tokens[i] != eos_id_) continue;
      if (i > begin) documents.push_back({segment.begin + begin, i + 1 - begin});
      begin = i + 1;
    }
  }
  return documents;
}

void TokenCorpus::copy(int64_t begin, int64_t n, int64_t* out) const {
  auto segment = std::prev(std::upper_bound(segments_.begin(), segments_.end(), begin,
                                            [](int64_t at, const Segment& s) { return at < s.begin; }));
  for (; n > 0; ++segment) {
    const int64_t at = begin - segment->begin, count = std::min(n, segment->tokens.count - at);
    segment->tokens.copy(at, count, out);
    const auto damage = std::find_if(out, out + count, [this](int64_t id) { return id >= vocab_size_; });
    require(damage == out + count, "{}: damaged token shard: token id {} in a vocabulary of {}", segment->name, *damage,
            vocab_size_);
    begin += count, out += count, n -= count;
  }
}

}  // namespace oryx
