#include "cli/eval_tasks.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/files.h"
#include "data/tokenizer.h"
#include "eval/evaluation.h"
#include "eval/report/html.h"
#include "eval/report/line_chart.h"

namespace oryx::cli {
namespace {

struct TaskOptions {
  std::vector<std::string> names;  // tasks, and the model's directory last
  std::string tasks = ORYX_SOURCE_DIR "/tasks";
  std::string schedule, policy, examples_out, sweep, html;
  std::vector<std::string> places;
  EvaluationOptions evaluation;
};

// "fraction=0,0.1,1"
std::vector<double> parse_sweep(const std::string& text) {
  constexpr std::string_view kName = "fraction=";
  require(text.starts_with(kName), "--sweep '{}' must have the form fraction=0,0.1,1", excerpt(text));
  std::vector<double> fractions;
  for (std::string_view rest = std::string_view(text).substr(kName.size());;) {
    const std::string_view word = rest.substr(0, rest.find(','));
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    require(error == std::errc() && end == word.data() + word.size() && value >= 0 && value <= 1,
            "--sweep: '{}' is no fraction; it must be a number from 0 to 1", excerpt(word));
    fractions.push_back(value);
    if (word.size() == rest.size()) return fractions;
    rest.remove_prefix(word.size() + 1);
  }
}

// Each line of --examples-out, begun with the task.
class ExampleLines {
 public:
  explicit ExampleLines(const std::string& path) {
    if (!path.empty()) file_ = std::make_unique<FileWriter>(path);
  }
  std::function<void(const Json&)> of(const std::string& task, const std::string& routing) {
    if (!file_) return {};
    return [this, task, routing](const Json& line) {
      Json out{{"task", task}, {"routing", routing}};
      out.update(line);
      file_->write(out.dump() + "\n");
    };
  }
  void close() {
    if (file_) file_->close();
  }

 private:
  std::unique_ptr<FileWriter> file_;
};

std::string percent(double fraction) {
  return fmt::format("{:.1f}%", 100 * fraction);
}

std::string shown(const TaskResult& result) {
  std::string text;
  for (const auto& [name, x] : result.metrics) {
    text += fmt::format("{}{} {:.4f}", text.empty() ? "" : "  ", name, x.value);
    if (!std::isnan(x.stderr_)) text += fmt::format(" ± {:.4f}", x.stderr_);
  }
  return text;
}

void print_row(const std::string& name, const TaskResult& result) {
  std::printf("%s\n",
              fmt::format("{:<24} {:>10} {:>8}  {}", name, percent(result.attention_fraction), result.n, shown(result))
                  .c_str());
  std::fflush(stdout);
}

void print_heading(const char* first) {
  std::printf("%s\n", fmt::format("{:<24} {:>10} {:>8}", first, "attention", "n").c_str());
}

struct Point {
  std::string where;
  double fraction;
  TaskResult result;
};

report::LineChart chart_of(const Task& task, const std::vector<Point>& points) {
  static constexpr const char* kStyles[] = {"attention", "recurrent", "mixed", "other", "muted"};
  const std::string& metric = task.metrics[0];
  report::LineChart chart;
  chart.title = fmt::format("{}: {} against the fraction of tokens in attention", task.name, metric);
  chart.caption = fmt::format("{} examples; bars are one standard error.", points.front().result.n);
  chart.x = {.label = "tokens in attention", .unit = report::Unit::percent};
  chart.y = {.label = metric};
  for (const Point& point : points) {
    if (chart.series.empty() || chart.series.back().name != point.where)
      chart.series.push_back({.name = point.where,
                              .style = kStyles[chart.series.size() % 5],
                              .points = {},
                              .marker = report::Marker::circle});
    const Estimate& x = point.result.metrics[0].second;
    chart.series.back().points.push_back({point.result.attention_fraction, x.value, x.stderr_});
  }
  for (report::Series& series : chart.series) std::ranges::sort(series.points, {}, &report::Point::x);
  return chart;
}

std::vector<Point> sweep(const Evaluation& evaluation, const Task& task, const TaskOptions& options,
                         const LanguageModel& model, ExampleLines& lines, bool json) {
  const std::vector<double> fractions = parse_sweep(options.sweep);
  std::vector<Point> points;
  for (const std::string& where : options.places) {
    for (const double fraction : fractions) {
      const auto routing =
          make_routing(Placement{where, fraction, options.evaluation.seed}, options.names.back(), model);
      points.push_back({where, fraction, evaluation.run(*routing, lines.of(task.name, routing->text()))});
      const TaskResult& result = points.back().result;
      if (!json) print_row("  " + routing->text(), result);
      if (where != "question") continue;
      points.back().fraction = result.attention_fraction;  // the question's, whatever was asked for
      break;
    }
  }
  return points;
}

void run(TaskOptions& options, const Common& common) {
  require(
      options.names.size() >= 2,
      "give one task or more and then a model's directory: oryx eval TASK... MODEL; oryx eval list names the tasks");
  const std::string directory = options.names.back();
  require(options.sweep.empty() || (options.schedule.empty() && options.policy.empty()),
          "give --sweep, --schedule or --policy, not two of them");
  require(!options.sweep.empty() || (options.places.empty() && options.html.empty()),
          "--where and --html go with --sweep");
  if (options.places.empty()) options.places = {"tail"};
  if (!options.sweep.empty()) (void)parse_sweep(options.sweep);
  for (const std::string& where : options.places)
    if (!is_policy(where)) (void)make_routing(Placement{where});
  const std::vector<Task> tasks = find_tasks({options.names.begin(), options.names.end() - 1}, options.tasks);
  require(options.evaluation.data.empty() || tasks.size() == 1, "--data takes the place of one task's own, not of {}",
          tasks.size());
  const LanguageModel model = common.load_model(directory);
  const Tokenizer tokenizer = Tokenizer::load(directory);
  ExampleLines lines(options.examples_out);
  Json out = Json::object();
  std::string charts;
  if (!common.json) print_heading(options.sweep.empty() ? "task" : "placement");
  for (const Task& task : tasks) {
    const auto evaluation = make_evaluation(model, tokenizer, task, options.evaluation);
    if (options.sweep.empty()) {
      const std::string text = options.schedule.empty() ? Common::schedule("", model).text() : options.schedule;
      const auto routing = options.policy.empty() ? make_routing(text, model.config())
                                                  : make_routing(make_policy(options.policy, directory, model));
      const TaskResult result = evaluation->run(*routing, lines.of(task.name, routing->text()));
      out[task.name] = result.to_json();
      if (!common.json) print_row(task.name, result);
      continue;
    }
    if (!common.json) std::printf("%s\n", task.name.c_str());
    const auto points = sweep(*evaluation, task, options, model, lines, common.json);
    Json& list = out[task.name]["sweep"] = Json::array();
    for (const Point& point : points) {
      list.push_back({{"where", point.where}, {"fraction", point.fraction}});
      list.back().update(point.result.to_json());
    }
    charts += chart_of(task, points).html();
  }
  lines.close();
  if (!options.html.empty())
    write_file_atomically(options.html,
                          report::html_page("Accuracy against attention", "Sweep of " + directory, charts));
  if (common.json) Common::print(out);
}

void list_tasks(const std::string& directory, bool json) {
  Json out = Json::array();
  for (const Task& task : all_tasks(directory)) {
    out.push_back({{"name", task.name},
                   {"group", task.group},
                   {"kind", kind_name(task.kind)},
                   {"metrics", task.metrics},
                   {"about", task.about}});
    if (!json) std::printf("%s\n", fmt::format("{:<18} {:<20} {}", task.name, task.group, task.about).c_str());
  }
  if (json) Common::print(out);
}

}  // namespace

void add_tasks(CLI::App& eval, Common& common) {
  auto options = std::make_shared<TaskOptions>();
  eval.add_option("TASK", options->names, "Tasks (oryx eval list) or TOML files, then the model's directory");
  eval.add_option("--tasks", options->tasks, "Folder of tasks, in place of the project's own");
  eval.add_option("--schedule", options->schedule,
                  "Mixer of each token, e.g. tail:0.1; or question: attention for that");
  Common::add_policy(eval, options->policy);
  eval.add_option("--limit", options->evaluation.limit, "The first so many examples")->check(CLI::PositiveNumber);
  eval.add_option("--shots", options->evaluation.shots, "Answered examples before each")->check(CLI::NonNegativeNumber);
  eval.add_option("--seed", options->evaluation.seed, "Of the shots and of random placements");
  eval.add_option("--data", options->evaluation.data, "A file in place of the task's own, in the same format");
  eval.add_option("--length", options->evaluation.length, "Tokens of the examples of a synthetic task")
      ->check(CLI::PositiveNumber);
  eval.add_option("--context", options->evaluation.context,
                  "Tokens that the model may see; longer prompts lose their beginning")
      ->check(CLI::PositiveNumber);
  eval.add_option("--batch-tokens", options->evaluation.batch_tokens, "Tokens read together (8192; 65536 on a GPU)")
      ->check(CLI::PositiveNumber);
  eval.add_option("--examples-out", options->examples_out,
                  "JSON lines: prompt, answer, score and schedule of each example");
  eval.add_option("--sweep", options->sweep, "fraction=0,0.1,1: accuracy against the fraction of tokens in attention");
  eval.add_option("--where", options->places,
                  "Where a sweep puts them: tail, head, question, random, every, or a policy as entropy[:CHUNK]")
      ->allow_extra_args(false)
      ->delimiter(',');
  eval.add_option("--html", options->html, "A page with the sweep as charts");
  eval.callback([&eval, options, &common] {
    if (eval.get_subcommands().empty()) run(*options, common);
  });

  CLI::App* list = eval.add_subcommand("list", "The tasks");
  list->callback([options, &common] { list_tasks(options->tasks, common.json); });
}

}  // namespace oryx::cli
