#include "train/gate_training.h"

#include <cstdio>

#include "base/error.h"
#include "base/files.h"
#include "cli/options.h"
#include "data/tokenizer.h"
#include "train/joint_training.h"
#include "train/training_data.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

struct GateOptions {
  std::string model, recipe, out;
  std::vector<std::string> set;
  bool joint = false;
  JointTrainingOptions training;
};

struct Prepared {
  Recipe recipe;
  std::unique_ptr<TrainingData> data;
};

// The recipe's data for this model: with its tokenizer, and in batches of at least one sequence.
Prepared load_data(const GateOptions& options, const LanguageModel& model) {
  Json json = load_toml(options.recipe);
  for (const std::string& assignment : options.set) apply_override(json, assignment);
  Recipe recipe = Recipe::from_json(json, options.recipe, fs::path(options.recipe).parent_path());
  recipe.model = model.config();
  recipe.vocab_given = true;
  const fs::path tokenizer = Tokenizer::find(options.model);
  if (!tokenizer.empty()) recipe.data.tokenizer = tokenizer.string();
  if (!options.joint) recipe.data.valid.clear();
  const int64_t context = recipe.data.context;
  recipe.train.micro_batch_tokens = context * std::max<int64_t>(1, 8192 / context);
  recipe.train.seed = static_cast<int64_t>(options.training.gate.seed);
  auto data = std::make_unique<TrainingData>(recipe, options.model, /*learns=*/false);
  require(data->train().vocab_size() <= model.config().vocab_size,
          "{}: the data has a vocabulary of {}, but the model of {}", options.recipe, data->train().vocab_size(),
          model.config().vocab_size);
  return {std::move(recipe), std::move(data)};
}

void print(const GateTrainingReport& report, const fs::path& directory) {
  std::printf("%s, from %lld tokens that gain %.4f nats on average in attention\n", (directory / Gate::kFile).c_str(),
              static_cast<long long>(report.tokens), report.mean_gain);
  std::printf("  tokens in attention   part of the gain: by the gate   at best\n");
  for (const auto& [fraction, part] : report.caught)
    std::printf("  %19.0f%% %30.1f%% %8.1f%%\n", 100 * std::stod(fraction), 100 * part, 100 * report.best.at(fraction));
}

void train_both(const GateOptions& options, const Common& common, LanguageModel& model, const Prepared& prepared) {
  const auto [gate, report] = train_jointly(model, *prepared.data, prepared.recipe, options.training);
  StagedDirectory staged(options.out);
  model.save(staged.path());
  gate.save(staged.path());
  prepared.data->save_into(staged.path());
  if (const fs::path defaults = fs::path(options.model) / "generation_config.json"; fs::exists(defaults))
    fs::copy_file(defaults, staged.path() / defaults.filename());
  require(!fs::exists(options.out), "--out {}: exists by now; nothing was written", options.out);
  staged.commit();
  if (common.json) return Common::print(report.to_json());
  print(report.gate, options.out);
  for (const auto& [mode, loss] : report.before.items())
    std::printf("  validation, %-10s %.4f before, %.4f after\n", mode.c_str(), loss.get<double>(),
                report.after.at(mode).get<double>());
}

void run(const GateOptions& options, const Common& common) {
  require(options.joint == !options.out.empty(), "--joint and --out DIR go together: joint training makes a new model");
  require(options.out.empty() || !fs::exists(options.out), "--out {}: exists already; give another", options.out);
  LanguageModel model = common.load_model(options.model);
  const Prepared prepared = load_data(options, model);
  if (options.joint) return train_both(options, common, model, prepared);
  const auto [gate, report] = train_gate(model, prepared.data->train(), options.training.gate);
  gate.save(options.model);
  if (common.json) return Common::print(report.to_json());
  print(report, options.model);
}

}  // namespace

void add_gate(CLI::App& app, Common& common) {
  CLI::App* gate = app.add_subcommand("gate", "The head that --policy gate:FRACTION asks");
  gate->require_subcommand(1);
  gate->fallthrough();
  auto options = std::make_shared<GateOptions>();
  CLI::App* command = gate->add_subcommand("train", "Trains a gate for a model and leaves it in the model's directory");
  command->add_option("MODEL", options->model, "A model directory; it keeps its weights")->required();
  command
      ->add_option("RECIPE", options->recipe,
                   "A recipe, of which [data] is used (--joint: [mixing] and AdamW's settings too)")
      ->required();
  command->add_option("--set", options->set, "Replace a key of the recipe: table.key=value");
  command->add_option("--tokens", options->training.gate.tokens, "To be read (default 1000000)")
      ->check(CLI::PositiveNumber);
  command->add_option("--width", options->training.gate.width, "Of the gate's inner layer (default 64)")
      ->check(CLI::Range(1, 65536));
  command->add_option("--lr", options->training.gate.lr, "Learning rate at the begin (default 2e-3)")
      ->check(CLI::Range(0.0, 10.0));
  command->add_option("--seed", options->training.gate.seed, "Of the gate and the data");
  command->add_flag("--joint", options->joint, "Train the model's weights on with the gate, into --out");
  command->add_option("--out", options->out, "New directory for the model and gate of --joint");
  command->add_option("--model-lr", options->training.model_lr, "Of the weights in --joint (default 1e-3)")
      ->check(CLI::Range(0.0, 10.0));
  command->add_option("--gate-weight", options->training.weight, "Of the gate's loss in --joint (default 1)")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--placed", options->training.placed,
                   "Part of the sequences of --joint that the gate schedules itself (default 0.5)")
      ->check(CLI::Range(0.0, 1.0));
  command->callback([options, &common] { run(*options, common); });
}

}  // namespace oryx::cli
