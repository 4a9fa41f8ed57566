#include <algorithm>
#include <chrono>
#include <map>
#include <numbers>

#include "base/error.h"
#include "base/progress.h"
#include "data/text_file.h"
#include "eval/evaluation_kinds.h"
#include "eval/scoring.h"
#include "eval/text_metrics.h"
#include "eval/token_windows.h"

namespace oryx {
namespace {

// Perplexity of documents, the loss on repeated text, the loss by position: sequences cut out of a text.
class TextEvaluation : public Evaluation {
 public:
  TextEvaluation(const LanguageModel& model, const Tokenizer& tokenizer, const Task& task,
                 const EvaluationOptions& options)
      : model_(model), task_(task), options_(options) {
    const std::filesystem::path path = options.data.empty() ? task.data : options.data;
    const std::string text = read_utf8_file(path);
    context_ = options.context > 0 ? options.context : model.config().max_position_embeddings;
    require(context_ >= 2, "the context must be at least 2 tokens, but is {}", context_);
    const auto articles = split_articles(text);
    for (const std::string& article : articles) {
      if (options.limit > 0 && documents_ == options.limit) break;
      const auto ids = tokenizer.encode(task.substituted(article));
      if (ids.empty()) continue;
      const std::vector<int64_t> tokens(ids.begin(), ids.end());
      if (task.kind == TaskKind::perplexity)
        add_rolling(tokens, tokenizer.eos_id());
      else
        add_windows(tokens, tokenizer.eos_id());
      words_.push_back(static_cast<double>(count_words(article)));
      bytes_.push_back(static_cast<double>(article.size()));
      ++documents_;
    }
    require(!sequences_.empty(), "{}: no document of it fills {}", path.string(),
            task.kind == TaskKind::perplexity
                ? "a token"
                : fmt::format("a context of {} tokens; use a shorter --context", context_));
  }

  TaskResult run(const Routing& routing, const std::function<void(const Json&)>& line) const override {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<RoutedSequence> routed;
    for (const Sequence& s : sequences_) routed.push_back({s.tokens, s.first - 1, 0, s.first});
    const auto schedules = routing.route(model_, routed);
    AttentionMeter meter(model_.config().num_hidden_layers);
    std::vector<ScoringRequest> requests;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const Sequence& s = sequences_[i];
      requests.push_back({s.tokens, schedules[i].slice(0, static_cast<int64_t>(s.tokens.size()) - 1), s.first});
      meter.add(requests.back().schedule);
    }
    Progress progress(task_.name + ", " + routing.text(), static_cast<int64_t>(requests.size()));
    const auto scores =
        score_sequences(model_, requests, options_.batch_tokens, [&](int64_t done) { progress.update(done); });
    progress.finish();
    TaskResult result;
    if (task_.kind == TaskKind::perplexity)
      judge_documents(scores, result);
    else if (task_.kind == TaskKind::repeated_text)
      judge_repetition(scores, result);
    else
      judge_positions(scores, result);
    result.attention_fraction = meter.fraction();
    for (size_t i = 0; line && i < scores.size(); ++i)
      line({{"id", std::to_string(i)},
            {"document", sequences_[i].document},
            {"tokens", static_cast<int64_t>(scores[i].logprobs.size())},
            {"score", scores[i].sum()},
            {"schedule", requests[i].schedule.str()}});
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
  }

 private:
  struct Sequence {
    std::vector<int64_t> tokens;
    int64_t first;  // scored
    int64_t document;
  };

  // The end-of-text token stands before the document.
  void add_rolling(const std::vector<int64_t>& tokens, int64_t eos) {
    std::vector<int64_t> whole{eos};
    whole.insert(whole.end(), tokens.begin(), tokens.end());
    if (tokens.empty()) return;
    for (const TokenWindow& w : token_windows(static_cast<int64_t>(whole.size()), 1, context_))
      sequences_.push_back({{whole.begin() + w.begin, whole.begin() + w.end}, w.first_scored - w.begin, documents_});
  }

  // Whole windows of `context_` tokens read: of the text, or of half as much text and the same again.
  void add_windows(const std::vector<int64_t>& tokens, int64_t eos) {
    const bool twice = task_.kind == TaskKind::repeated_text;
    const int64_t width = twice ? context_ / 2 : context_;
    for (int64_t begin = 0; begin + width <= static_cast<int64_t>(tokens.size()); begin += width) {
      std::vector<int64_t> window{eos};
      for (int copy = 0; copy < (twice ? 2 : 1); ++copy)
        window.insert(window.end(), tokens.begin() + begin, tokens.begin() + begin + width);
      sequences_.push_back({std::move(window), 1, documents_});
    }
  }

  void judge_documents(const std::vector<ScoringResult>& scores, TaskResult& result) const {
    std::vector<double> nats(documents_, 0);
    for (size_t i = 0; i < scores.size(); ++i) nats[sequences_[i].document] -= scores[i].sum();
    const Estimate per_word = ratio_of(nats, words_), per_byte = ratio_of(nats, bytes_);
    for (const std::string& metric : task_.metrics) {
      const Estimate bits{per_byte.value / std::numbers::ln2, per_byte.stderr_ / std::numbers::ln2};
      result.metrics.emplace_back(metric, metric == "word_perplexity"   ? exp_of(per_word)
                                          : metric == "byte_perplexity" ? exp_of(per_byte)
                                                                        : bits);
    }
    result.n = documents_;
  }

  void judge_repetition(const std::vector<ScoringResult>& scores, TaskResult& result) const {
    std::vector<double> first, again;
    for (const ScoringResult& s : scores) {
      const auto half = s.logprobs.begin() + static_cast<int64_t>(s.logprobs.size() / 2);
      first.push_back(-mean_of({s.logprobs.begin(), half}).value);
      again.push_back(-mean_of({half, s.logprobs.end()}).value);
    }
    for (const std::string& metric : task_.metrics)
      result.metrics.emplace_back(metric, mean_of(metric == "first_nats" ? first : again));
    result.n = static_cast<int64_t>(scores.size());
  }

  // Positions in groups that double: 1, 2-3, 4-7, ...
  void judge_positions(const std::vector<ScoringResult>& scores, TaskResult& result) const {
    std::map<int64_t, std::vector<double>> groups;
    std::vector<double> all;
    for (const ScoringResult& s : scores) {
      all.push_back(-mean_of(s.logprobs).value);
      const auto n = static_cast<int64_t>(s.logprobs.size());
      for (int64_t begin = 1; begin <= n; begin *= 2) {
        const int64_t end = std::min(2 * begin, n + 1);
        groups[begin].push_back(-mean_of({s.logprobs.begin() + begin - 1, s.logprobs.begin() + end - 1}).value);
      }
    }
    result.metrics.emplace_back("nats", mean_of(all));
    Json positions = Json::array();
    for (const auto& [begin, nats] : groups) {
      const Estimate x = mean_of(nats);
      positions.push_back(
          {{"from", begin}, {"to", std::min(2 * begin - 1, context_)}, {"nats", x.value}, {"stderr", x.stderr_}});
    }
    result.more["positions"] = positions;
    result.n = static_cast<int64_t>(scores.size());
  }

  const LanguageModel& model_;
  Task task_;
  EvaluationOptions options_;
  int64_t context_, documents_ = 0;
  std::vector<Sequence> sequences_;
  std::vector<double> words_, bytes_;  // of each document
};

}  // namespace

std::unique_ptr<Evaluation> make_text_evaluation(const LanguageModel& model, const Tokenizer& tokenizer,
                                                 const Task& task, const EvaluationOptions& options) {
  return std::make_unique<TextEvaluation>(model, tokenizer, task, options);
}

}  // namespace oryx
