#include "train/training_data.h"

#include <algorithm>

#include "base/error.h"
#include "base/files.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kValidationSeed = 0x76616c6964ull;  // apart from any training seed

std::vector<fs::path> paths(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

Tokenizer get_tokenizer(const Recipe::Data& data, const fs::path& run) {
  if (!data.tokenizer.empty()) return Tokenizer::load(data.tokenizer);
  const fs::path own = run / "tokenizer.model";
  if (!fs::exists(own)) Tokenizer::train(paths(data.text), data.vocab, own);
  return Tokenizer::load(own);
}

}  // namespace

TrainingData::TrainingData(Recipe& recipe, const fs::path& run) {
  const auto& data = recipe.data;
  const auto& t = recipe.train;
  const auto seed = static_cast<uint64_t>(t.seed);
  if (data.recall) {
    recall_ = data.recall;
    train_ = std::make_unique<RecallSource>(*recall_, t.micro_batch_tokens, seed);
    valid_ = std::make_unique<RecallSource>(*recall_, t.micro_batch_tokens, seed ^ kValidationSeed);
    valid_batches_ = std::max<int64_t>(1, t.eval_tokens / t.micro_batch_tokens);
    return;
  }
  tokenizer_ = get_tokenizer(data, run);
  if (!recipe.vocab_given) recipe.model.vocab_size = tokenizer_->vocab_size();
  require(recipe.model.vocab_size >= tokenizer_->vocab_size(),
          "[model] vocab_size {} is smaller than the tokenizer's {}", recipe.model.vocab_size,
          tokenizer_->vocab_size());
  recipe.model.bos_token_id = tokenizer_->bos_id();
  recipe.model.eos_token_id = tokenizer_->eos_id();
  const auto corpus =
      std::make_shared<const TokenCorpus>(data.text.empty() ? TokenCorpus::from_shards(paths(data.shards), *tokenizer_)
                                                            : TokenCorpus::from_text(paths(data.text), *tokenizer_));
  train_ = std::make_unique<TextSource>(corpus, data.context, t.micro_batch_tokens, seed);
  if (data.valid.empty()) return;
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
