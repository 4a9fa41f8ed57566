#include "train/gate_training.h"

#include <cstdio>

#include "base/error.h"
#include "cli/options.h"
#include "data/tokenizer.h"
#include "train/training_data.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model, recipe;
  std::vector<std::string> set;
  GateTrainingOptions training;
};

// The recipe's data for this model: with its tokenizer, and in batches of at least one sequence.
TrainingData load_data(const Options& options, const LanguageModel& model) {
  Json json = load_toml(options.recipe);
  for (const std::string& assignment : options.set) apply_override(json, assignment);
  Recipe recipe = Recipe::from_json(json, options.recipe, fs::path(options.recipe).parent_path());
  recipe.model = model.config();
  recipe.vocab_given = true;
  const fs::path tokenizer = Tokenizer::find(options.model);
  if (!tokenizer.empty()) recipe.data.tokenizer = tokenizer.string();
  recipe.data.valid.clear();
  const int64_t context = recipe.data.context;
  recipe.train.micro_batch_tokens = context * std::max<int64_t>(1, 8192 / context);
  recipe.train.seed = static_cast<int64_t>(options.training.seed);
  return {recipe, options.model, /*learns=*/false};
}

void run(const Options& options, const Common& common) {
  const LanguageModel model = common.load_model(options.model);
  const TrainingData data = load_data(options, model);
  require(data.train().vocab_size() <= model.config().vocab_size,
          "{}: the data has a vocabulary of {}, but the model of {}", options.recipe, data.train().vocab_size(),
          model.config().vocab_size);
  const auto [gate, report] = train_gate(model, data.train(), options.training);
  gate.save(options.model);
  if (common.json) return Common::print(report.to_json());
  std::printf("%s, from %lld tokens that gain %.4f nats on average in attention\n",
              (fs::path(options.model) / Gate::kFile).c_str(), static_cast<long long>(report.tokens), report.mean_gain);
  std::printf("  tokens in attention   part of the gain: by the gate   at best\n");
  for (const auto& [fraction, part] : report.caught)
    std::printf("  %19.0f%% %30.1f%% %8.1f%%\n", 100 * std::stod(fraction), 100 * part, 100 * report.best.at(fraction));
}

}  // namespace

void add_gate(CLI::App& app, Common& common) {
  CLI::App* gate = app.add_subcommand("gate", "The head that --policy gate:FRACTION asks");
  gate->require_subcommand(1);
  gate->fallthrough();
  auto options = std::make_shared<Options>();
  CLI::App* command = gate->add_subcommand("train", "Trains a gate for a model and leaves it in the model's directory");
  command->add_option("MODEL", options->model, "A model directory; its weights stay as they are")->required();
  command->add_option("RECIPE", options->recipe, "A recipe, of which [data] is used")->required();
  command->add_option("--set", options->set, "Replace a key of the recipe: table.key=value");
  command->add_option("--tokens", options->training.tokens, "To be read (default 1000000)")->check(CLI::PositiveNumber);
  command->add_option("--width", options->training.width, "Of the gate's inner layer (default 64)")
      ->check(CLI::Range(1, 65536));
  command->add_option("--lr", options->training.lr, "Learning rate at the begin (default 2e-3)")
      ->check(CLI::Range(0.0, 10.0));
  command->add_option("--seed", options->training.seed, "Of the gate and the data");
  command->callback([options, &common] { run(*options, common); });
}

}  // namespace oryx::cli
