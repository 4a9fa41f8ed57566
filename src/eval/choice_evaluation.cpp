#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/progress.h"
#include "eval/continuation.h"
#include "eval/evaluation_kinds.h"
#include "eval/prompts.h"
#include "eval/scoring.h"
#include "eval/text_metrics.h"

namespace oryx {
namespace {

// Multiple choice and completion: log-likelihoods of continuations.
class ChoiceEvaluation : public Evaluation {
 public:
  ChoiceEvaluation(const LanguageModel& model, const Tokenizer& tokenizer, const Task& task,
                   const EvaluationOptions& options)
      : model_(model),
        task_(task),
        options_(options),
        prompts_(task_, options, read_examples(options.data.empty() ? task.data : options.data)) {
    for (int64_t i = 0; i < prompts_.size(); ++i) {
      firsts_.push_back(items_.size());
      const Example& example = prompts_.example(i);
      const auto choices = static_cast<int64_t>(task.scores_choices() ? example.choices.size() : 1);
      for (int64_t c = 0; c < choices; ++c) add(tokenizer, prompts_.prompt(i, c), example.where);
    }
    firsts_.push_back(items_.size());
  }

  TaskResult run(const Routing& routing, const std::function<void(const Json&)>& line) const override {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<RoutedSequence> sequences;
    for (const Item& item : items_)
      sequences.push_back({item.tokens.tokens, item.question_begin, 0, item.tokens.first});
    const auto schedules = routing.route(model_, sequences);
    AttentionMeter meter(model_.config().num_hidden_layers);
    std::vector<ScoringRequest> requests;
    for (size_t i = 0; i < items_.size(); ++i) {
      const auto read = static_cast<int64_t>(items_[i].tokens.tokens.size()) - 1;
      requests.push_back({items_[i].tokens.tokens, schedules[i].slice(0, read), items_[i].tokens.first});
      meter.add(requests.back().schedule);
    }
    Progress progress(task_.name + ", " + routing.text(), static_cast<int64_t>(requests.size()));
    const auto scores =
        score_sequences(model_, requests, options_.batch_tokens, [&](int64_t done) { progress.update(done); });
    progress.finish();
    TaskResult result;
    result.n = prompts_.size();
    result.attention_fraction = meter.fraction();
    std::vector<double> acc, acc_norm, logprobs;
    for (int64_t i = 0; i < prompts_.size(); ++i) {
      const std::span<const ScoringResult> own(scores.data() + firsts_[i], firsts_[i + 1] - firsts_[i]);
      if (task_.scores_choices()) {
        judge_choices(i, own, acc, acc_norm);
      } else {
        acc.push_back(own[0].greedy ? 1 : 0);
        logprobs.push_back(-own[0].sum());
      }
      if (line) line(describe(i, own, requests, acc.back()));
    }
    for (const std::string& metric : task_.metrics)
      result.metrics.emplace_back(metric, metric == "acc"        ? mean_of(acc)
                                          : metric == "acc_norm" ? mean_of(acc_norm)
                                                                 : exp_of(mean_of(logprobs)));
    if (truncated_ > 0) result.more["truncated"] = truncated_;
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
  }

 private:
  struct Item {
    ContinuationTokens tokens;
    int64_t question_begin;
  };

  void add(const Tokenizer& tokenizer, const Prompt& prompt, const std::string& where) {
    require(!prompt.continuation.empty(), "{}: there is nothing to score: the answer is empty", where);
    Item item{encode_continuation(tokenizer, prompt.before(), prompt.continuation), 0};
    // Without a question, attention begins with the token that predicts the answer.
    item.question_begin = prompt.question.empty()
                              ? item.tokens.first - 1
                              : std::min(count_context_tokens(tokenizer, prompt.context), item.tokens.first - 1);
    auto& tokens = item.tokens.tokens;
    const int64_t surplus = options_.context > 0 ? static_cast<int64_t>(tokens.size()) - options_.context - 1 : 0;
    if (surplus > 0) {
      require(item.tokens.first > surplus, "{}: the answer alone is longer than the context of {} tokens", where,
              options_.context);
      tokens.erase(tokens.begin(), tokens.begin() + surplus);
      item.tokens.first -= surplus;
      item.question_begin = std::max<int64_t>(item.question_begin - surplus, 0);
      ++truncated_;
    }
    items_.push_back(std::move(item));
  }

  void judge_choices(int64_t i, std::span<const ScoringResult> scores, std::vector<double>& acc,
                     std::vector<double>& acc_norm) const {
    const Example& example = prompts_.example(i);
    std::vector<double> sums, per_character;
    for (size_t c = 0; c < scores.size(); ++c) {
      sums.push_back(scores[c].sum());
      per_character.push_back(sums.back() / static_cast<double>(std::max<int64_t>(
                                                count_characters(task_.substituted(example.choices[c])), 1)));
    }
    const auto right = [&](const std::vector<double>& x) {
      return std::ranges::max_element(x) - x.begin() == example.answer ? 1.0 : 0.0;
    };
    acc.push_back(right(sums));
    acc_norm.push_back(right(per_character));
  }

  Json describe(int64_t i, std::span<const ScoringResult> scores, const std::vector<ScoringRequest>& requests,
                double score) const {
    const Example& example = prompts_.example(i);
    const int64_t shown = task_.scores_choices() ? example.answer : 0;
    const Prompt prompt = prompts_.prompt(i, shown);
    Json out{{"id", example.id}, {"prompt", prompt.before()}};
    Json sums = Json::array();
    for (const ScoringResult& s : scores) sums.push_back(s.sum());
    if (task_.scores_choices()) {
      out["choices"] = example.choices;
      out["answer"] = example.answer;
      out["prediction"] = std::ranges::max_element(sums) - sums.begin();
    } else {
      out["answer"] = example.answers[0];
      out["greedy"] = scores[0].greedy;
    }
    out["logprobs"] = sums;
    out["score"] = score;
    out["schedule"] = requests[firsts_[i] + shown].schedule.str();
    return out;
  }

  const LanguageModel& model_;
  Task task_;
  EvaluationOptions options_;
  Prompts prompts_;
  std::vector<Item> items_;
  std::vector<size_t> firsts_;  // items of each example, [n + 1]
  int64_t truncated_ = 0;
};

}  // namespace

std::unique_ptr<Evaluation> make_choice_evaluation(const LanguageModel& model, const Tokenizer& tokenizer,
                                                   const Task& task, const EvaluationOptions& options) {
  return std::make_unique<ChoiceEvaluation>(model, tokenizer, task, options);
}

}  // namespace oryx
