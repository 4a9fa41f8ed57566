#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "cli/options.h"
#include "data/tokenizer.h"
#include "generate/engine.h"

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>

namespace oryx::cli {
namespace {

struct GenerateOptions {
  std::string model, prompt, prompt_file, requests, schedule, policy;
  int64_t max_tokens = 128, max_length = 0;  // max_length 0: any
  SamplingOptions sampling;
};

struct Request {
  std::string prompt;
  int64_t max_tokens;
  std::vector<std::string> until;  // the text ends before the first of these
  SamplingOptions sampling;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class Writer {
 public:
  Writer(const GenerateOptions& options, const Common& common)
      : options_(options),
        model_(common.load_model(options.model)),
        tokenizer_(Tokenizer::load(options.model)),
        policy_(Common::policy(options.schedule, options.policy, options.model, model_)) {}

  // Continues one prompt; `put` gets the text as it comes.
  Json run(const Request& request, const std::function<void(const std::string&)>& put) {
    auto ids = tokenizer_.encode(request.prompt);
    require(!ids.empty(), "the prompt is empty: give some text");
    cut(ids, request.max_tokens);
    const auto length = static_cast<int64_t>(ids.size());
    const auto begin = std::chrono::steady_clock::now();
    Generator generator(model_, {ids.begin(), ids.end()}, policy_->start(model_, length + request.max_tokens),
                        request.sampling);
    const double prefill = seconds_since(begin);
    StreamDecoder decoder(tokenizer_);
    std::string text, stop = "max_tokens";
    Json tokens = Json::array(), mixers = Json::array(), logprobs = Json::array();
    const auto add = [&](const std::string& piece) {
      text += piece;
      if (end_before(text, request.until)) stop = "until";
      put(piece);
    };
    for (int64_t i = 0; i < request.max_tokens && stop == "max_tokens"; ++i) {
      const GeneratedToken token = generator.next();
      if (token.id == tokenizer_.eos_id()) stop = "end_of_text";
      tokens.push_back(token.id);
      mixers.push_back(mode_name(token.mode));
      logprobs.push_back(token.logprob);
      add(decoder.push(static_cast<int32_t>(token.id)));
    }
    if (stop != "until") add(decoder.finish());
    const double total = seconds_since(begin);
    const auto generated = static_cast<double>(tokens.size());
    return {{"prompt", request.prompt},
            {"text", text},
            {"prompt_tokens", length},
            {"tokens", tokens},
            {"mixers", mixers},
            {"logprobs", logprobs},
            {options_.policy.empty() ? "schedule" : "policy", policy_->text()},
            {"attention_fraction", generator.attention_fraction()},
            {"stop", stop},
            {"statistics",
             {{"prefill_s", prefill},
              {"decode_s", total - prefill},
              {"decode_tokens_per_s", generated / std::max(total - prefill, 1e-9)},
              {"cache_bytes", generator.cache_bytes()}}}};
  }

  // JSON lines in and out.
  void run_lines(std::istream& in, const std::string& source) {
    int64_t number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (trim(line).empty()) continue;
      const std::string where = fmt::format("{}:{}", source, number);
      const Json json = parse_json(line, where);
      Fields fields(json, where);
      const Json id = fields.raw("id");
      Request request{fields.string("prompt"), fields.integer("max_tokens", options_.max_tokens),
                      fields.strings("until", std::vector<std::string>{}), options_.sampling};
      request.sampling.temperature = fields.number("temperature", request.sampling.temperature);
      fields.finish();
      require(request.max_tokens > 0, "{}: 'max_tokens' must be at least 1, but is {}", where, request.max_tokens);
      Json result = run(request, [](const std::string&) {});
      result["id"] = id;
      std::cout << result.dump() << '\n' << std::flush;
    }
    require(!in.bad(), "{}: cannot be read", source);
    if (cut_ > 0)
      Progress::say(fmt::format("{} prompts lost their beginning, to leave room for their continuation in {} tokens",
                                cut_, options_.max_length));
  }

 private:
  // Leaves the end of a prompt that is too long.
  void cut(std::vector<int32_t>& ids, int64_t max_tokens) {
    if (options_.max_length == 0) return;
    const int64_t room = options_.max_length - max_tokens, length = static_cast<int64_t>(ids.size());
    require(room > 0, "--max-length {} leaves no room for a prompt beside {} tokens to be written", options_.max_length,
            max_tokens);
    if (length <= room) return;
    ids.erase(ids.begin(), ids.end() - room);
    ++cut_;
  }

  static bool end_before(std::string& text, const std::vector<std::string>& until) {
    size_t end = std::string::npos;
    for (const std::string& stop : until)
      if (!stop.empty()) end = std::min(end, text.find(stop));
    if (end == std::string::npos) return false;
    text.resize(end);
    return true;
  }

  const GenerateOptions& options_;
  LanguageModel model_;
  Tokenizer tokenizer_;
  std::unique_ptr<const Policy> policy_;
  int64_t cut_ = 0;
};

void run(const GenerateOptions& options, const Common& common) {
  Writer writer(options, common);
  if (!options.requests.empty()) {
    if (options.requests == "-") return writer.run_lines(std::cin, "standard input");
    std::ifstream in(options.requests);
    require(in.is_open(), "{}: no such file, or it cannot be read", options.requests);
    return writer.run_lines(in, options.requests);
  }
  const std::string prompt = options.prompt_file.empty() ? options.prompt : read_text_file(options.prompt_file);
  const Json result = writer.run({prompt, options.max_tokens, {}, options.sampling}, [&](const std::string& piece) {
    if (common.json) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  });
  if (common.json) return Common::print(result);
  std::printf("\n");
}

}  // namespace

void add_generate(CLI::App& app, Common& common) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt");
  command->add_option("MODEL", options->model, "A model directory")->required();
  auto* prompt = command->add_option("--prompt", options->prompt, "The text to continue");
  auto* file = command->add_option("--prompt-file", options->prompt_file, "A file with the text to continue");
  auto* requests = command->add_option(
      "--requests", options->requests,
      R"(JSON lines of {"prompt", "max_tokens"?, "until"?, "temperature"?, "id"?}, or -; JSON lines out)");
  prompt->excludes(file)->excludes(requests);
  file->excludes(requests);
  command->add_option("--schedule", options->schedule, "Mixer of each position, e.g. recurrent:..64,attention:64..");
  Common::add_policy(*command, options->policy);
  command->add_option("--max-tokens", options->max_tokens, "How many to write (default 128)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--max-length", options->max_length,
                   "Tokens of prompt and continuation; a longer prompt loses its beginning (default: nothing is cut)")
      ->check(CLI::PositiveNumber);
  command->add_option("--temperature", options->sampling.temperature, "0 (default): the most probable token")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", options->sampling.seed, "Of the draws, with a temperature");
  command->callback([options, &common] { run(*options, common); });
}

}  // namespace oryx::cli
