#include "train/training_data.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "data/block_source.h"
#include "data/mixture.h"
#include "data/recall.h"
#include "data/synthetic.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kValidationSeed = 0x76616c6964ull;  // apart from any training seed
constexpr uint64_t kSourcePurpose = 0x736f7572636573;

std::vector<fs::path> paths(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

// All texts, or all shards, of a recipe's sources.
std::vector<fs::path> all_paths(const Recipe::Data& data, std::vector<std::string> Recipe::Source::*kind) {
  std::vector<fs::path> all = paths(data.*kind);
  for (const auto& source : data.sources) all.insert(all.end(), (source.*kind).begin(), (source.*kind).end());
  return all;
}

// None when nothing in the recipe is text.
std::shared_ptr<const Tokenizer> get_tokenizer(const Recipe& recipe, const fs::path& run, bool learns) {
  const auto& data = recipe.data;
  const auto load = [](const fs::path& path) { return std::make_shared<const Tokenizer>(Tokenizer::load(path)); };
  if (!data.tokenizer.empty()) return load(data.tokenizer);
  const auto shards = all_paths(data, &Recipe::Source::shards), text = all_paths(data, &Recipe::Source::text);
  if (!shards.empty()) return load(shards.front());
  const fs::path given = recipe.weights;
  if (!given.empty() && (fs::exists(given / "tokenizer.model") || fs::exists(given / "tokenizer.json")))
    return load(given);
  if (text.empty()) return nullptr;
  const fs::path own = run / "tokenizer.model";
  require(
      learns || fs::exists(own),
      "{}, which rank 0 has learned, is not to be seen here: give [data] a tokenizer, or an --out that all machines "
      "share",
      own.string());
  if (!fs::exists(own)) Tokenizer::train(text, data.vocab, own);
  return load(own);
}

std::unique_ptr<BatchSource> make_source(const Recipe::Source& source,
                                         const std::shared_ptr<const Tokenizer>& tokenizer, int64_t context,
                                         int64_t batch_tokens, uint64_t seed) {
  if (source.recall) return std::make_unique<RecallSource>(*source.recall, batch_tokens, seed);
  auto corpus = source.text.empty() ? TokenCorpus::from_shards(paths(source.shards), *tokenizer)
                                    : TokenCorpus::from_text(paths(source.text), *tokenizer);
  return std::make_unique<BlockSource>(std::make_shared<const TokenCorpus>(std::move(corpus)), context, batch_tokens,
                                       seed);
}

}  // namespace

TrainingData::TrainingData(Recipe& recipe, const fs::path& run, bool learns) {
  const auto& data = recipe.data;
  const auto& t = recipe.train;
  const auto seed = static_cast<uint64_t>(t.seed);
  tokenizer_ = get_tokenizer(recipe, run, learns);
  if (data.sources.empty()) {
    train_ = make_source(data, tokenizer_, data.context, t.micro_batch_tokens, seed);
  } else {
    std::vector<MixtureSource::Member> members;
    for (const auto& source : data.sources) {
      const uint64_t own_seed = Random{seed, kSourcePurpose, members.size()}.next();
      auto made = source.synthetic ? std::make_unique<SyntheticSource>(*source.synthetic, tokenizer_, data.context,
                                                                       data.context, own_seed)
                                   : make_source(source, tokenizer_, data.context, data.context, own_seed);
      members.push_back({std::move(made), source.weight});
    }
    train_ = std::make_unique<MixtureSource>(std::move(members), t.micro_batch_tokens, seed);
  }
  if (data.recall) {
    recall_ = data.recall;
    valid_ = std::make_unique<RecallSource>(*recall_, t.micro_batch_tokens, seed ^ kValidationSeed);
    valid_batches_ = std::max<int64_t>(1, t.eval_tokens / t.micro_batch_tokens);
    return;
  }
  const int64_t vocab = std::max(train_->vocab_size(), tokenizer_ ? tokenizer_->vocab_size() : 0);
  if (!recipe.vocab_given) recipe.model.vocab_size = vocab;
  require(recipe.model.vocab_size >= vocab, "[model] vocab_size {} is smaller than the {} tokens of the data",
          recipe.model.vocab_size, vocab);
  if (tokenizer_) {
    recipe.model.bos_token_id = tokenizer_->bos_id();
    recipe.model.eos_token_id = tokenizer_->eos_id();
  }
  if (data.valid.empty()) return;
  require(tokenizer_ != nullptr, "[data] valid: validation on text needs a 'tokenizer'");
  windows_ = std::make_unique<TextWindows>(
      std::make_shared<const TokenCorpus>(TokenCorpus::from_text(paths(data.valid), *tokenizer_)), data.context,
      t.micro_batch_tokens, t.eval_tokens);
  valid_batches_ = windows_->batches();
}

void TrainingData::save_into(const fs::path& directory) const {
  if (tokenizer_) write_file_atomically(directory / tokenizer_->file_name(), tokenizer_->bytes());
  if (recall_) write_file_atomically(directory / "recall.json", recall_->to_json().dump(2) + "\n");
}

}  // namespace oryx
