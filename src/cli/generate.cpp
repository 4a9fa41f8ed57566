#include "base/error.h"
#include "base/files.h"
#include "cli/options.h"
#include "data/tokenizer.h"
#include "generate/engine.h"

#include <chrono>
#include <cstdio>

namespace oryx::cli {
namespace {

struct Options {
  std::string model, prompt, prompt_file, schedule, policy;
  int64_t max_tokens = 128;
  SamplingOptions sampling;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void run(const Options& options, const Common& common) {
  const LanguageModel model = common.load_model(options.model);
  const Tokenizer tokenizer = Tokenizer::load(options.model);
  const std::string text = options.prompt_file.empty() ? options.prompt : read_text_file(options.prompt_file);
  const auto ids = tokenizer.encode(text);
  require(!ids.empty(), "the prompt is empty: give some text with --prompt or --prompt-file");
  const auto length = static_cast<int64_t>(ids.size());
  const auto policy = Common::policy(options.schedule, options.policy, options.model, model);
  const auto begin = std::chrono::steady_clock::now();
  Generator generator(model, {ids.begin(), ids.end()}, policy->start(model, length + options.max_tokens),
                      options.sampling);
  const double prefill = seconds_since(begin);
  StreamDecoder decoder(tokenizer);
  std::string continuation;
  Json tokens = Json::array(), mixers = Json::array(), logprobs = Json::array();
  const auto put = [&](const std::string& piece) {
    continuation += piece;
    if (common.json) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  bool ended = false;
  for (int64_t i = 0; i < options.max_tokens && !ended; ++i) {
    const GeneratedToken token = generator.next();
    ended = token.id == tokenizer.eos_id();
    tokens.push_back(token.id);
    mixers.push_back(mode_name(token.mode));
    logprobs.push_back(token.logprob);
    put(decoder.push(static_cast<int32_t>(token.id)));
  }
  put(decoder.finish());
  const double total = seconds_since(begin);
  if (!common.json) {
    std::printf("\n");
    return;
  }
  const auto generated = static_cast<double>(tokens.size());
  Common::print({{"prompt", text},
                 {"text", continuation},
                 {"prompt_tokens", length},
                 {"tokens", tokens},
                 {"mixers", mixers},
                 {"logprobs", logprobs},
                 {options.policy.empty() ? "schedule" : "policy", policy->text()},
                 {"attention_fraction", generator.attention_fraction()},
                 {"stop", ended ? "end_of_text" : "max_tokens"},
                 {"statistics",
                  {{"prefill_s", prefill},
                   {"decode_s", total - prefill},
                   {"decode_tokens_per_s", generated / std::max(total - prefill, 1e-9)},
                   {"cache_bytes", generator.cache_bytes()}}}});
}

}  // namespace

void add_generate(CLI::App& app, Common& common) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt");
  command->add_option("MODEL", options->model, "A model directory")->required();
  auto* prompt = command->add_option("--prompt", options->prompt, "The text to continue");
  auto* file = command->add_option("--prompt-file", options->prompt_file, "A file with the text to continue");
  prompt->excludes(file);
  command->add_option("--schedule", options->schedule, "Mixer of each position, e.g. recurrent:..64,attention:64..");
  Common::add_policy(*command, options->policy);
  command->add_option("--max-tokens", options->max_tokens, "How many to write (default 128)")
      ->check(CLI::PositiveNumber);
  command->add_option("--temperature", options->sampling.temperature, "0 (default): the most probable token")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", options->sampling.seed, "Of the draws, with a temperature");
  command->callback([options, &common] { run(*options, common); });
}

}  // namespace oryx::cli
