#include <algorithm>
#include <chrono>
#include <map>

#include "base/error.h"
#include "base/progress.h"
#include "base/text.h"
#include "eval/continuation.h"
#include "eval/decoding.h"
#include "eval/evaluation_kinds.h"
#include "eval/prompts.h"
#include "eval/text_metrics.h"

namespace oryx {
namespace {

// Retrieval: greedy continuations, compared with the answers.
class GenerationEvaluation : public Evaluation {
 public:
  GenerationEvaluation(const LanguageModel& model, const Tokenizer& tokenizer, const Task& task,
                       const EvaluationOptions& options, std::vector<Example> examples)
      : model_(model),
        tokenizer_(tokenizer),
        task_(task),
        options_(options),
        prompts_(task_, options, std::move(examples)) {
    for (int64_t i = 0; i < prompts_.size(); ++i) add(i);
  }

  TaskResult run(const Routing& routing, const std::function<void(const Json&)>& line) const override {
    const auto begin = std::chrono::steady_clock::now();
    const auto schedules = routing.route(model_, sequences_);
    std::vector<DecodingRequest> requests;
    for (size_t i = 0; i < sequences_.size(); ++i) requests.push_back({sequences_[i].tokens, schedules[i]});
    Progress progress(task_.name + ", " + routing.text(), prompts_.size());
    const auto tokens = decode_greedily(
        model_, requests, [this](size_t, const std::vector<int64_t>& written) { return ended(written); },
        options_.batch_tokens, [&](int64_t done) { progress.update(done); });
    progress.finish();
    TaskResult result;
    result.n = prompts_.size();
    AttentionMeter meter(model_.config().num_hidden_layers);
    std::map<std::string, std::vector<double>> scores;
    for (int64_t i = 0; i < prompts_.size(); ++i) {
      // The token written last is not read.
      const auto read = static_cast<int64_t>(requests[i].prompt.size() + tokens[i].size()) - 1;
      const MixerSchedule schedule = schedules[i].slice(0, read);
      meter.add(schedule);
      const Example& example = prompts_.example(i);
      const std::string written = answer_in(tokens[i]);
      Json own;
      for (const std::string& metric : task_.metrics) {
        scores[metric].push_back(score(metric, written, example.answers));
        own[metric] = scores[metric].back();
      }
      if (line)
        line({{"id", example.id},
              {"prompt", prompts_.prompt(i).before()},
              {"answer", example.answers},
              {"prediction", written},
              {"score", own[task_.metrics[0]]},
              {"scores", own},
              {"schedule", schedule.str()}});
    }
    for (const std::string& metric : task_.metrics) result.metrics.emplace_back(metric, mean_of(scores[metric]));
    result.attention_fraction = meter.fraction();
    if (truncated_ > 0) result.more["truncated"] = truncated_;
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
  }

 private:
  void add(int64_t i) {
    const Prompt prompt = prompts_.prompt(i);
    std::string text = prompt.before();
    // Spaces at the end would belong to the first token of the answer.
    text.resize(text.find_last_not_of(' ') + 1);
    const auto ids = tokenizer_.encode(text);
    RoutedSequence sequence{{ids.begin(), ids.end()}, 0, task_.max_tokens};
    if (sequence.tokens.empty()) sequence.tokens.push_back(tokenizer_.eos_id());
    const auto length = static_cast<int64_t>(sequence.tokens.size());
    sequence.question_begin =
        prompt.question.empty() ? length - 1 : std::min(count_context_tokens(tokenizer_, prompt.context), length - 1);
    const int64_t surplus = options_.context > 0 ? length + task_.max_tokens - options_.context : 0;
    if (surplus > 0) {
      require(surplus < length,
              "{}: the {} tokens that may be generated leave no room for the prompt in a context of {}",
              prompts_.example(i).where, task_.max_tokens, options_.context);
      sequence.tokens.erase(sequence.tokens.begin(), sequence.tokens.begin() + surplus);
      sequence.question_begin = std::max<int64_t>(sequence.question_begin - surplus, 0);
      ++truncated_;
    }
    sequence.given = static_cast<int64_t>(sequence.tokens.size());
    sequences_.push_back(std::move(sequence));
  }

  static double score(const std::string& metric, const std::string& text, const std::vector<std::string>& answers) {
    if (metric == "contains") return contains_answer(text, answers) ? 1 : 0;
    if (metric == "exact_match") return exact_match(text, answers) ? 1 : 0;
    return metric == "f1" ? word_f1(text, answers) : found_answers(text, answers);
  }

  std::string decoded(const std::vector<int64_t>& tokens) const {
    return tokenizer_.decode(std::vector<int32_t>(tokens.begin(), tokens.end()));
  }

  bool ended(const std::vector<int64_t>& tokens) const {
    if (tokens.back() == tokenizer_.eos_id()) return true;
    const std::string text = decoded(tokens);
    return std::ranges::any_of(task_.until, [&](const auto& stop) { return text.find(stop) != std::string::npos; });
  }

  // Up to the first of the ends, without the spaces around it.
  std::string answer_in(const std::vector<int64_t>& tokens) const {
    std::string text = decoded(tokens);
    for (const std::string& stop : task_.until) text.resize(std::min(text.find(stop), text.size()));
    return excerpt(trim(text), text.size() * 4 + 16);
  }

  const LanguageModel& model_;
  const Tokenizer& tokenizer_;
  Task task_;
  EvaluationOptions options_;
  Prompts prompts_;
  std::vector<RoutedSequence> sequences_;
  int64_t truncated_ = 0;
};

}  // namespace

namespace {

std::vector<Example> examples_of(const Task& task, const Tokenizer& tokenizer, const EvaluationOptions& options) {
  if (!options.data.empty()) return read_examples(options.data);
  if (task.kind != TaskKind::synthetic) return read_examples(task.data);
  SyntheticExamples made = task.synthetic;
  if (options.length > 0) made.length = options.length;
  return made.make(tokenizer, options.limit > 0 ? options.limit + options.shots : made.examples, options.seed);
}

}  // namespace

std::unique_ptr<Evaluation> make_generation_evaluation(const LanguageModel& model, const Tokenizer& tokenizer,
                                                       const Task& task, const EvaluationOptions& options) {
  return std::make_unique<GenerationEvaluation>(model, tokenizer, task, options, examples_of(task, tokenizer, options));
}

}  // namespace oryx
