#include <ATen/Parallel.h>

#include <csignal>
#include <cstdio>

#include "base/error.h"
#include "base/progress.h"
#include "cli/options.h"
#include "data/prepare.h"
#include "train/stop_signal.h"

namespace oryx::cli {
namespace {

constexpr int64_t kProblemsShown = 10;

void report(const PrepareOptions& options, const PrepareResult& result, const Common& common) {
  const double rate = static_cast<double>(result.new_text_bytes) / 1e6 / result.seconds;
  if (common.json) {
    Common::print({{"directory", options.output.string()},
                   {"documents", result.documents},
                   {"tokens", result.tokens},
                   {"text_bytes", result.text_bytes},
                   {"shards", result.shards},
                   {"corrupt", result.corrupt},
                   {"empty", result.empty},
                   {"seconds", result.seconds},
                   {"mb_per_s", rate},
                   {"threads", options.threads},
                   {"finished", result.finished}});
    return;
  }
  if (result.corrupt > 0)
    std::fprintf(stderr, "%lld corrupt lines or files were left out; manifest.json names the first of them\n",
                 static_cast<long long>(result.corrupt));
  if (!result.finished) {
    std::fprintf(stderr, "stopped; the same command with --resume goes on from the last finished shard\n");
    return;
  }
  std::printf("%s: %lld documents, %s tokens in %lld shards, %.1f MB of text", options.output.c_str(),
              static_cast<long long>(result.documents), human_count(static_cast<double>(result.tokens)).c_str(),
              static_cast<long long>(result.shards), static_cast<double>(result.text_bytes) / 1e6);
  if (result.new_text_bytes > 0)
    std::printf("; %.1f MB/s with %d threads, %s", rate, options.threads, human_duration(result.seconds).c_str());
  std::printf("\n");
}

}  // namespace

void add_data(CLI::App& app, Common& common) {
  CLI::App* data = app.add_subcommand("data", "Training data");
  data->require_subcommand(1);
  auto options = std::make_shared<PrepareOptions>();
  CLI::App* command = data->add_subcommand("prepare", "Tokenize text into token shards");
  command
      ->add_option("INPUT", options->inputs,
                   "Text files (documents between lines of <|endoftext|>), .jsonl files, perhaps .zst or .gz, or "
                   "directories of them")
      ->required();
  command->add_option("--tokenizer", options->tokenizer, "tokenizer.model, tokenizer.json, or a directory with one")
      ->required();
  command->add_option("--out", options->output, "The shard directory to write")->required();
  command->add_option("--text-key", options->text_key, "The member of a JSON line that holds its text (default text)");
  command->add_option("--shard-tokens", options->shard_tokens, "Tokens after which a shard is closed (default 64Mi)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--strict", options->strict, "A corrupt line is an error, not only counted and named");
  command->add_flag("--resume", options->resume, "Go on with an unfinished run, if there is one");
  command->callback([options, &common] {
    options->threads = at::get_num_threads();
    const StopSignal signal;
    options->stop = [] { return StopSignal::received() != 0; };
    int64_t problems = 0;
    options->on_problem = [&](const std::string& what) {
      if (++problems <= kProblemsShown) std::fprintf(stderr, "left out: %s\n", what.c_str());
      if (problems == kProblemsShown) std::fprintf(stderr, "further ones are only counted\n");
    };
    const PrepareResult result = prepare_token_shards(*options);
    report(*options, result, common);
    if (!result.finished && StopSignal::received() == SIGINT) throw Interrupted{};
  });
}

}  // namespace oryx::cli
