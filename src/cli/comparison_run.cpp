#include "cli/comparison_run.h"

#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "cli/compare_report.h"
#include "cli/compare_results.h"
#include "data/sha256.h"
#include "train/position_losses.h"
#include "train/stop_signal.h"
#include "train/trainer.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

// In a run's folder: the digest of the tokens that it was trained on.
constexpr const char* kTokensDigest = "tokens.sha256";

// Of the tokens of up to 64 batches spread over the budget.
std::string digest(const BatchSource& source, const Recipe& recipe) {
  const int64_t all = recipe.steps() * (recipe.train.batch_tokens / recipe.train.micro_batch_tokens),
                count = std::min<int64_t>(64, all);
  Sha256 sha;
  for (int64_t i = 0; i < count; ++i) {
    const Batch batch = source.batch(i * all / count);
    sha.update(batch.tokens.data(), batch.tokens.size() * sizeof(int64_t));
  }
  return sha.hex();
}

// A finished run must have had this recipe; what the data add to it is not known here.
void check_finished(const fs::path& run, const Recipe& recipe) {
  const fs::path written = run / "recipe.json";
  std::set<std::string> of_data{"model.bos_token_id", "model.eos_token_id"};
  if (!recipe.vocab_given) of_data.insert("model.vocab_size");
  if (const auto other = Recipe::difference(load_json(written), written.string(), recipe.to_json(), of_data))
    input_error(
        "{} was trained after another recipe: {} is {} now; go back to the earlier recipe, or give another --out",
        run.string(), other->key, other->now.dump());
}

}  // namespace

ComparisonRun::ComparisonRun(Comparison comparison, fs::path out, bool resume, at::Device device)
    : comparison_(std::move(comparison)), out_(std::move(out)), resume_(resume), device_(device) {
  const fs::path before = out_ / "comparison.json";
  require(resume_ || !fs::exists(before),
          "{} already holds a comparison; pass --resume to go on with it, or give another --out", out_.string());
  if (fs::exists(before)) digests_ = load_json(before).value("tokens_sha256", Json::object());
}

int ComparisonRun::run() {
  write_reports();
  for (size_t i = 0; i < comparison_.seeds.size(); ++i) {
    data_.reset();
    for (size_t model = 0; model < comparison_.models.size(); ++model) {
      if (const int signal = run_one(model, i); signal != 0) return signal;
      write_reports();
    }
  }
  return 0;
}

void ComparisonRun::prepare() {
  for (const Recipe& recipe : comparison_.models.front().recipes) load_data(recipe);
  data_.reset();
  write_reports();
  resume_ = true;
}

int ComparisonRun::run_one(size_t model_index, size_t seed_index) {
  const auto& [name, recipes] = comparison_.models[model_index];
  const Recipe& recipe = recipes[seed_index];
  const int64_t seed = comparison_.seeds[seed_index];
  const fs::path run = run_folder(out_, name, seed);
  const bool trained = resume_ && fs::exists(run / "model" / "config.json");
  if (trained) {
    check_finished(run, recipe);
    check_tokens(run, seed);
  }
  if (trained && fs::exists(run / kPositionLosses)) return 0;
  if (!data_) load_data(recipe);
  if (!trained) {
    Progress::say(fmt::format("{}, seed {}", name, seed));
    share_tokenizer(run);
    check_tokens(run, seed);
    write_file_atomically(run / kTokensDigest, digests_.at(std::to_string(seed)).get<std::string>());
    train(recipe, {run, resume_, device_});
    // Not TrainResult::stopped_by: the signal may have come in a run's last step.
    if (StopSignal::received() != 0) return StopSignal::received();
  }
  LanguageModel model = LanguageModel::load(run / "model", device_);
  model.set_compute_type(recipe.train.precision == "bf16" ? at::kBFloat16 : at::kFloat);
  write_file_atomically(run / kPositionLosses, position_losses(model, *data_, recipe.data.context).dump(1) + "\n");
  return 0;
}

// All models of a seed see the tokens of one source, which must not have changed since the comparison began.
void ComparisonRun::load_data(Recipe recipe) {
  data_ = std::make_unique<TrainingData>(recipe, out_);
  const std::string seed = fmt::format("{}", recipe.train.seed), now = digest(data_->train(), recipe);
  const std::string before = digests_.value(seed, now);
  require(before == now,
          "{}: the tokens of seed {} are not those that the comparison began with; restore the data, or give another "
          "--out",
          out_.string(), seed);
  digests_[seed] = now;
}

// Runs may come from different machines.
void ComparisonRun::check_tokens(const fs::path& run, int64_t seed) {
  if (!fs::exists(run / kTokensDigest)) return;
  const std::string key = std::to_string(seed), own = read_text_file(run / kTokensDigest);
  require(digests_.value(key, own) == own,
          "{} was trained on other tokens than the other models of seed {}; train it again on their data, in another "
          "--out",
          run.string(), seed);
  digests_[key] = own;
}

// One that was learned from the text, by load_data.
void ComparisonRun::share_tokenizer(const fs::path& run) const {
  const fs::path learned = out_ / "tokenizer.model";
  fs::create_directories(run);
  if (fs::exists(learned)) write_file_atomically(run / "tokenizer.model", read_text_file(learned));
}

void ComparisonRun::write_reports() {
  const Recipe& recipe = comparison_.models.front().recipes.front();
  results_ = {{"oryx", ORYX_VERSION},
              {"tokens", recipe.steps() * recipe.train.batch_tokens},
              {"seeds", comparison_.seeds},
              {"tokens_sha256", digests_}};
  results_.update(comparison_results(comparison_, out_));
  write_file_atomically(out_ / "comparison.json", results_.dump(1) + "\n");
  write_file_atomically(out_ / "comparison.md", comparison_markdown(results_));
  write_file_atomically(out_ / "comparison.html", comparison_page(results_));
}

void make_out_folder(const fs::path& out, const char* command) {
  require(Launch::from_environment().alone(),
          "{} trains one model after another in one process; start it without torchrun, mpirun or srun, and "
          "with --jobs N to use several GPUs",
          command);
  std::error_code error;
  fs::create_directories(out, error);
  require(!error, "{}: cannot be made: {}", out.string(), error.message());
}

}  // namespace oryx::cli
