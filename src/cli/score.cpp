#include "eval/scoring.h"

#include <algorithm>
#include <fstream>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "cli/options.h"
#include "data/tokenizer.h"
#include "eval/continuation.h"

namespace oryx::cli {
namespace {

struct Line {
  Json id;
  ScoringRequest request;
  bool continuation = false;
};

class Scorer {
 public:
  Scorer(const Common& common, const std::string& directory, const std::string& schedule)
      : model_(common.load_model(directory)), schedule_(Common::schedule(schedule, model_)) {
    const auto path = Tokenizer::find(directory);
    if (!path.empty()) tokenizer_ = Tokenizer::load(path);
  }

  void run(std::istream& in, const std::string& source) {
    std::vector<Line> batch;
    int64_t tokens = 0, number = 0;
    for (std::string text; std::getline(in, text);) {
      ++number;
      if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
      batch.push_back(read(text, fmt::format("{}:{}", source, number)));
      tokens += static_cast<int64_t>(batch.back().request.tokens.size());
      if (tokens >= 8192) {
        flush(batch);
        tokens = 0;
      }
    }
    require(!in.bad(), "{}: cannot be read", source);
    flush(batch);
  }

 private:
  const Tokenizer& tokenizer(const std::string& where) const {
    require(tokenizer_.has_value(),
            "{}: the model has no tokenizer.model or tokenizer.json, so it takes \"tokens\", not text", where);
    return *tokenizer_;
  }

  Line read(const std::string& text, const std::string& where) const {
    const Json json = parse_json(text, where);
    Fields fields(json, where);
    Line line;
    line.id = fields.raw("id");
    auto& tokens = line.request.tokens;
    if (fields.has("tokens")) {
      for (const Json& id : fields.raw("tokens")) {
        require(id.is_number_integer(), "{}: \"tokens\" must be a list of integers", where);
        tokens.push_back(id.get<int64_t>());
      }
    } else if (fields.has("text")) {
      const auto ids = tokenizer(where).encode(fields.string("text"));
      tokens.assign(ids.begin(), ids.end());
    } else if (fields.has("context") || fields.has("continuation")) {
      const std::string context = fields.string("context"), continuation = fields.string("continuation");
      require(!continuation.empty(), "{}: \"continuation\" is empty", where);
      auto encoded = encode_continuation(tokenizer(where), context, continuation);
      tokens = std::move(encoded.tokens);
      line.request.first_scored = encoded.first;
      line.continuation = true;
    } else {
      input_error("{}: give \"tokens\", \"text\", or \"context\" and \"continuation\"", where);
    }
    fields.finish();
    require(!tokens.empty(), "{}: there is no token to score", where);
    for (int64_t id : tokens)
      require(id >= 0 && id < model_.config().vocab_size, "{}: token id {} is outside the vocabulary of {}", where, id,
              model_.config().vocab_size);
    const auto length = static_cast<int64_t>(tokens.size());
    line.request.schedule = schedule_.resolve(length, model_.config()).slice(0, length - 1);
    return line;
  }

  void flush(std::vector<Line>& batch) const {
    std::vector<ScoringRequest> requests;
    requests.reserve(batch.size());
    for (Line& line : batch) requests.push_back(line.request);
    const auto results = score_sequences(model_, requests);
    for (size_t i = 0; i < batch.size(); ++i) print(batch[i], results[i]);
    std::cout.flush();
    batch.clear();
  }

  static void print(const Line& line, const ScoringResult& result) {
    const auto& tokens = line.request.tokens;
    Json ids = Json::array(), logprobs = Json::array();
    for (size_t t = line.continuation ? line.request.first_scored : 0; t < tokens.size(); ++t) ids.push_back(tokens[t]);
    if (!line.continuation) logprobs.push_back(nullptr);
    for (double p : result.logprobs) logprobs.push_back(p);
    Json out{{"id", line.id}, {"tokens", ids}, {"logprobs", logprobs}};
    if (line.continuation) {
      out["sum"] = result.sum();
      out["greedy"] = result.greedy;
    }
    std::cout << out.dump() << '\n';
  }

  LanguageModel model_;
  ScheduleSpec schedule_;
  std::optional<Tokenizer> tokenizer_;
};

}  // namespace

void add_score(CLI::App& app, Common& common) {
  struct Options {
    std::string model, file = "-", schedule;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("score", "Log-probabilities of JSON lines: tokens, text, or context and continuation");
  command->add_option("MODEL", options->model, "A model directory")->required();
  command->add_option("FILE", options->file, "JSON lines; - (default) reads standard input");
  command->add_option("--schedule", options->schedule, "Mixer of each token, e.g. tail:0.1");
  command->callback([options, &common] {
    Scorer scorer(common, options->model, options->schedule);
    if (options->file == "-") return scorer.run(std::cin, "standard input");
    std::ifstream in(options->file);
    require(in.is_open(), "{}: no such file, or it cannot be read", options->file);
    scorer.run(in, options->file);
  });
}

}  // namespace oryx::cli
