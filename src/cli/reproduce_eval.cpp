#include "cli/reproduce_eval.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "base/error.h"
#include "base/progress.h"
#include "base/random.h"
#include "cli/demo_stage.h"
#include "data/tokenizer.h"
#include "eval/evaluation.h"
#include "eval/recall.h"
#include "generate/engine.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kRecallSeed = 20240607;  // the default of `oryx eval recall`
constexpr int64_t kDecoded = 16;            // tokens timed
constexpr int kRepeats = 3;                 // of timings, of which the fastest counts

fs::path file_of_set(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (entry.is_regular_file()) files.push_back(entry.path());
  require(files.size() == 1,
          "[evaluation] data: {} must hold the set in one file, as oryx eval fetch writes it, but holds {} files",
          folder.string(), files.size());
  return files.front();
}

// The tasks that `names` name, with the plan's sets in place of the samples.
std::vector<Task> tasks_of(const std::vector<std::string>& names, const EvaluationPlan& plan, const fs::path& folder) {
  if (names.empty()) return {};
  std::vector<Task> tasks = find_tasks(names, folder);
  for (Task& task : tasks)
    if (!plan.data.empty() && !task.data.empty()) task.data = file_of_set(plan.data / task.name);
  return tasks;
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class RunEvaluation {
 public:
  RunEvaluation(const fs::path& run, const EvaluationPlan& plan, const fs::path& tasks, const Common& common)
      : run_(run),
        plan_(plan),
        tasks_(tasks),
        common_(common),
        cache_(run),
        modes_(own_modes(load_json(run / "recipe.json"))) {}

  Json modes() {
    Json out = Json::object();
    for (const Task& task : tasks_of(plan_.tasks, plan_, tasks_))
      for (const auto& [mode, schedule] : modes_) out[mode][task.name] = task_result(task, schedule, nullptr);
    return out;
  }

  Json retrieval() {
    Json out = Json::array();
    for (const Task& task : tasks_of(plan_.retrieval, plan_, tasks_))
      sweep(task.name, out, [&](const std::string& schedule, const Placement* placement) {
        const Json result = task_result(task, schedule, placement);
        return Json{{"accuracy", result.at(task.metrics[0])},
                    {"n", result.at("n")},
                    {"attention_fraction", result.at("attention_fraction")}};
      });
    if (plan_.recall)
      sweep("recall", out, [&](const std::string& schedule, const Placement* placement) {
        const Json result = recall_result(schedule, placement);
        return Json{{"accuracy", result.at("accuracy")},
                    {"n", result.at("queries")},
                    {"attention_fraction", result.at("attention_fraction")}};
      });
    return out;
  }

  Json contexts() {
    Json out = Json::array();
    for (const auto& mode : modes_)
      for (const int64_t length : plan_.contexts) {
        Json row{{"mode", mode.first}, {"length", length}};
        row.update(cache_.get(settings("context", "", mode.second, {{"length", length}, {"threads", common_.threads}}),
                              [&] { return time_context(mode.second, length); }));
        out.push_back(std::move(row));
      }
    return out;
  }

 private:
  const LanguageModel& model() {
    if (!model_) model_ = std::make_unique<LanguageModel>(common_.load_model((run_ / "model").string()));
    return *model_;
  }

  Json settings(const char* what, const std::string& task, const std::string& schedule, const Json& more) const {
    Json json{
        {"what", what}, {"task", task}, {"schedule", schedule}, {"device", common_.device}, {"dtype", common_.dtype}};
    json.update(more);
    return json;
  }

  // The modes throughout, and, of a model that can choose, every place at every fraction.
  template <typename Measure>
  void sweep(const std::string& task, Json& out, const Measure& measure) {
    const auto add = [&](const std::string& where, const std::string& mode, double fraction, const Json& result) {
      Json point{{"task", task}, {"where", where}, {"mode", mode}, {"fraction", fraction}};
      point.update(result);
      out.push_back(std::move(point));
    };
    for (const auto& [mode, schedule] : modes_)
      add("all", mode, mode == "attention" ? 1 : 0, measure(schedule, nullptr));
    if (modes_.size() < 2) return;
    for (const std::string& where : plan_.places)
      for (const double fraction : plan_.fractions) {
        const Placement placement{where, fraction};
        if (where == "question")
          add(where, "", 0, measure("", &placement));
        else if (fraction > 0 && fraction < 1)
          add(where, "", fraction, measure("", &placement));
        if (where == "question") break;  // one place, whatever the fraction
      }
  }

  static std::string text(const std::string& schedule, const Placement* placement) {
    return placement == nullptr ? schedule : fmt::format("{}:{}", placement->where, placement->fraction);
  }

  Json task_result(const Task& task, const std::string& schedule, const Placement* placement) {
    Json key =
        settings("task", task.name, text(schedule, placement), {{"limit", plan_.limit}, {"length", plan_.length}});
    if (!plan_.data.empty() && !task.data.empty()) key["data"] = task.data.string();
    return cache_.get(key, [&] {
      if (!tokenizer_) tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::load(run_ / "model"));
      if (evaluated_ != task.name) {
        EvaluationOptions options;
        options.limit = plan_.limit;
        options.length = task.kind == TaskKind::synthetic ? plan_.length : 0;
        evaluation_ = make_evaluation(model(), *tokenizer_, task, options);
        evaluated_ = task.name;
      }
      const auto routing = placement == nullptr ? make_routing(schedule, model().config())
                                                : make_routing(*placement, run_ / "model", model());
      return evaluation_->run(*routing).to_json();
    });
  }

  Json recall_result(const std::string& schedule, const Placement* placement) {
    const RecallTask& task = *plan_.recall;
    const Json key =
        settings("recall", "recall", text(schedule, placement), {{"limit", plan_.limit}, {"recall", task.to_json()}});
    return cache_.get(key, [&] {
      std::unique_ptr<Policy> policy;
      if (placement != nullptr && is_policy(placement->where))
        policy = make_policy(text("", placement), run_ / "model", model());
      else
        policy = schedule_policy(ScheduleSpec::parse(
            placement == nullptr ? schedule
                                 : place_attention(*placement, task.length, task.length - task.pairs).str()));
      return evaluate_recall(model(), task, *policy, plan_.limit, kRecallSeed).to_json();
    });
  }

  // Of random tokens; what is let go when a mode never changes is not counted among the memory.
  Json time_context(const std::string& schedule, int64_t length) {
    const ModelConfig& config = model().config();
    Random random{kRecallSeed, static_cast<uint64_t>(length)};
    std::vector<int64_t> prompt(length);
    for (int64_t& id : prompt) id = static_cast<int64_t>(random.below(static_cast<uint64_t>(config.vocab_size)));
    double prefill = std::numeric_limits<double>::infinity(), decode = prefill;
    int64_t bytes = 0;
    Progress progress(fmt::format("{} tokens, {}", length, schedule), kRepeats);
    for (int i = 0; i < kRepeats; ++i) {
      const auto begin = Clock::now();
      Generator generator(model(), prompt, ScheduleSpec::parse(schedule).resolve(length + kDecoded + 1, config), {});
      generator.next();
      prefill = std::min(prefill, seconds_since(begin));
      const auto decoding = Clock::now();
      for (int64_t t = 0; t < kDecoded; ++t) generator.next();
      decode = std::min(decode, seconds_since(decoding) / kDecoded);
      bytes = generator.cache_bytes();
      progress.update(i + 1);
    }
    progress.finish();
    return {{"prefill_s", prefill}, {"decode_s", decode}, {"cache_bytes", bytes}};
  }

  fs::path run_;
  const EvaluationPlan& plan_;
  fs::path tasks_;
  const Common& common_;
  EvaluationCache cache_;
  std::vector<std::pair<std::string, std::string>> modes_;
  std::unique_ptr<LanguageModel> model_;  // loaded when there is something to measure
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Evaluation> evaluation_;  // of the task `evaluated_`
  std::string evaluated_;
};

}  // namespace

void check_plan(const EvaluationPlan& plan, const fs::path& tasks) {
  for (const auto& names : {plan.tasks, plan.retrieval}) tasks_of(names, plan, tasks);
  for (const std::string& where : plan.places)
    if (!is_policy(where)) make_routing(Placement{where});
}

Json evaluate_run(const fs::path& run, const EvaluationPlan& plan, const fs::path& tasks, bool contexts,
                  const Common& common) {
  RunEvaluation evaluation(run, plan, tasks, common);
  Json out{{"modes", evaluation.modes()}, {"retrieval", evaluation.retrieval()}};
  if (contexts) out["contexts"] = evaluation.contexts();
  return out;
}

}  // namespace oryx::cli
