#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "cli/eval_fetch.h"
#include "cli/eval_tasks.h"
#include "cli/options.h"
#include "data/text_file.h"
#include "eval/perplexity.h"
#include "eval/recall.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

struct PerplexityOptions {
  std::string model, file, schedule, policy;
  int64_t context = 0;
};

void add_perplexity(CLI::App& eval, Common& common) {
  auto options = std::make_shared<PerplexityOptions>();
  CLI::App* command = eval.add_subcommand("perplexity", "Perplexity and bits per byte of a text file");
  command->add_option("MODEL", options->model, "A model directory")->required();
  command->add_option("FILE", options->file, "UTF-8 text, perhaps .zst; documents separated by <|endoftext|> lines")
      ->required();
  command->add_option("--schedule", options->schedule, "Mixer of each token of a window, e.g. alternate:256");
  Common::add_policy(*command, options->policy);
  command->add_option("--context", options->context, "Tokens of a window (default: the model's training context)")
      ->check(CLI::PositiveNumber);
  command->callback([options, &common] {
    const std::string text = read_utf8_file(options->file);
    const LanguageModel model = common.load_model(options->model);
    const Tokenizer tokenizer = Tokenizer::load(options->model);
    const int64_t context = options->context > 0 ? options->context : model.config().max_position_embeddings;
    const auto policy = Common::policy(options->schedule, options->policy, options->model, model);
    const auto result = evaluate_perplexity(model, tokenizer, text, *policy, context);
    if (common.json) return Common::print(result.to_json());
    std::printf("perplexity %.4f (%.4f nats per token, %.4f bits per byte), %lld tokens, attention fraction %.4f\n",
                result.perplexity, result.nats_per_token, result.bits_per_byte, static_cast<long long>(result.tokens),
                result.attention_fraction);
  });
}

struct RecallOptions {
  std::string model, schedule, policy;
  std::optional<int64_t> vocab, pairs, length;
  std::optional<std::string> placement, filler;
  int64_t examples = 256;
  uint64_t seed = 20240607;
};

// The task that the model learned, with the options laid over it.
RecallTask find_task(const RecallOptions& options) {
  const fs::path path = fs::path(options.model) / "recall.json";
  RecallTask task;
  if (fs::exists(path))
    task = RecallTask::from_json(load_json(path), path.string());
  else
    require(options.vocab && options.pairs && options.length,
            "{} has no recall.json; give the task with --vocab, --pairs and --length", options.model);
  task.vocab = options.vocab.value_or(task.vocab);
  task.pairs = options.pairs.value_or(task.pairs);
  task.length = options.length.value_or(task.length);
  task.query_placement = options.placement.value_or(task.query_placement);
  task.filler = options.filler.value_or(task.filler);
  task.validate();
  return task;
}

void add_recall(CLI::App& eval, Common& common) {
  auto options = std::make_shared<RecallOptions>();
  CLI::App* command = eval.add_subcommand("recall", "Associative recall (MQAR)");
  command->add_option("MODEL", options->model, "A model directory")->required();
  command->add_option("--schedule", options->schedule, "Mixer of each token, e.g. recurrent:..64,attention:64..");
  Common::add_policy(*command, options->policy);
  command->add_option("--vocab", options->vocab, "Of the task (default: the one the model learned)");
  command->add_option("--pairs", options->pairs, "Keys and values to remember");
  command->add_option("--length", options->length, "Tokens of a sequence");
  command->add_option("--query-placement", options->placement, "power (as zoology) or end");
  command->add_option("--filler", options->filler, "any or values: what other tokens are drawn from");
  command->add_option("--examples", options->examples, "Sequences (default 256)")->check(CLI::PositiveNumber);
  command->add_option("--seed", options->seed, "Of the sequences");
  command->callback([options, &common] {
    const RecallTask task = find_task(*options);
    const LanguageModel model = common.load_model(options->model);
    const auto policy = Common::policy(options->schedule, options->policy, options->model, model);
    const auto result = evaluate_recall(model, task, *policy, options->examples, options->seed);
    if (common.json) return Common::print(result.to_json());
    std::printf("accuracy %.4f over %lld queries in %lld examples, attention fraction %.4f\n", result.accuracy,
                static_cast<long long>(result.queries), static_cast<long long>(result.examples),
                result.attention_fraction);
  });
}

}  // namespace

void add_eval(CLI::App& app, Common& common) {
  CLI::App* eval = app.add_subcommand("eval", "Evaluate a model");
  eval->fallthrough();
  add_perplexity(*eval, common);
  add_recall(*eval, common);
  add_fetch(*eval, common);
  add_tasks(*eval, common);
}

}  // namespace oryx::cli
