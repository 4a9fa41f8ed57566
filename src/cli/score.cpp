#include "eval/scoring.h"

#include <algorithm>
#include <fstream>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "base/progress.h"
#include "cli/options.h"
#include "data/tokenizer.h"
#include "eval/continuation.h"
#include "eval/token_windows.h"

namespace oryx::cli {
namespace {

struct Line {
  Json id;
  std::vector<int64_t> tokens;
  int64_t first_scored = 1;
  bool continuation = false;
};

struct ScoreOptions {
  std::string model, file = "-", schedule;
  int64_t max_length = 0;  // 0: any
};

class Scorer {
 public:
  Scorer(const Common& common, const ScoreOptions& options)
      : model_(common.load_model(options.model)),
        schedule_(Common::schedule(options.schedule, model_)),
        max_length_(options.max_length) {
    const auto path = Tokenizer::find(options.model);
    if (!path.empty()) tokenizer_ = Tokenizer::load(path);
  }

  void run(std::istream& in, const std::string& source) {
    std::vector<Line> batch;
    int64_t tokens = 0, number = 0;
    for (std::string text; std::getline(in, text);) {
      ++number;
      if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
      batch.push_back(read(text, fmt::format("{}:{}", source, number)));
      tokens += static_cast<int64_t>(batch.back().tokens.size());
      if (tokens >= 8192) {
        flush(batch);
        tokens = 0;
      }
    }
    require(!in.bad(), "{}: cannot be read", source);
    flush(batch);
    report_long_sequences();
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
    auto& tokens = line.tokens;
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
      line.first_scored = encoded.first;
      line.continuation = true;
    } else {
      input_error("{}: give \"tokens\", \"text\", or \"context\" and \"continuation\"", where);
    }
    fields.finish();
    require(!tokens.empty(), "{}: there is no token to score", where);
    for (int64_t id : tokens)
      require(id >= 0 && id < model_.config().vocab_size, "{}: token id {} is outside the vocabulary of {}", where, id,
              model_.config().vocab_size);
    return line;
  }

  void flush(std::vector<Line>& batch) {
    std::vector<ScoringRequest> requests;
    std::vector<size_t> ends;  // of each line's requests
    for (const Line& line : batch) {
      add_requests(line, requests);
      ends.push_back(requests.size());
    }
    const auto results = score_sequences(model_, requests);
    for (size_t i = 0, r = 0; i < batch.size(); ++i) {
      ScoringResult whole;
      for (; r < ends[i]; ++r) {
        whole.logprobs.insert(whole.logprobs.end(), results[r].logprobs.begin(), results[r].logprobs.end());
        whole.greedy &= results[r].greedy;
      }
      print(batch[i], whole);
    }
    std::cout.flush();
    batch.clear();
  }

  void add_requests(const Line& line, std::vector<ScoringRequest>& requests) {
    const auto length = static_cast<int64_t>(line.tokens.size());
    if (length < 2) return;
    const auto windows = token_windows(length, line.first_scored, max_length_ > 0 ? max_length_ : length);
    cut_ += windows[0].begin > 0 && windows.size() == 1;
    for (const TokenWindow& w : windows) {
      longest_ = std::max(longest_, w.end - w.begin - 1);
      const auto begin = line.tokens.begin();
      requests.push_back({{begin + w.begin, begin + w.end},
                          schedule_.resolve(w.end - w.begin, model_.config()).slice(0, w.end - w.begin - 1),
                          w.first_scored - w.begin});
    }
  }

  void report_long_sequences() const {
    const int64_t trained = model_.config().max_position_embeddings;
    if (cut_ > 0)
      Progress::say(fmt::format("{} sequences of more than {} tokens lost their beginning", cut_, max_length_));
    if (longest_ > trained)
      Progress::say(fmt::format("the longest sequence was read whole, {} tokens; the model's training context is {}",
                                longest_, trained));
  }

  static void print(const Line& line, const ScoringResult& result) {
    Json ids = Json::array(), logprobs = Json::array();
    for (size_t t = line.continuation ? line.first_scored : 0; t < line.tokens.size(); ++t)
      ids.push_back(line.tokens[t]);
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
  int64_t max_length_, cut_ = 0, longest_ = 0;
};

}  // namespace

void add_score(CLI::App& app, Common& common) {
  auto options = std::make_shared<ScoreOptions>();
  CLI::App* command =
      app.add_subcommand("score", "Log-probabilities of JSON lines: tokens, text, or context and continuation");
  command->add_option("MODEL", options->model, "A model directory")->required();
  command->add_option("FILE", options->file, "JSON lines; - (default) reads standard input");
  command->add_option("--schedule", options->schedule, "Mixer of each token, e.g. tail:0.1");
  command
      ->add_option("--max-length", options->max_length,
                   "Tokens that a prediction may be made from: contexts lose their beginning, longer texts and "
                   "continuations go by windows (default: nothing is cut)")
      ->check(CLI::PositiveNumber);
  command->callback([options, &common] {
    Scorer scorer(common, *options);
    if (options->file == "-") return scorer.run(std::cin, "standard input");
    std::ifstream in(options->file);
    require(in.is_open(), "{}: no such file, or it cannot be read", options->file);
    scorer.run(in, options->file);
  });
}

}  // namespace oryx::cli
