#include <ATen/Parallel.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "bench/train_bench.h"
#include "cli/compare_results.h"
#include "cli/comparison_run.h"
#include "cli/demo_stage.h"
#include "cli/options.h"
#include "cli/reproduce_eval.h"
#include "cli/reproduce_results.h"
#include "cli/run_pool.h"
#include "train/run_lock.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

struct ReproduceOptions {
  std::string scale = "demo", config, out, project = ORYX_SOURCE_DIR, run;
  std::vector<std::string> set;
  bool resume = false, cost = false, yes = false;
  int jobs = 1;
};

// Of a training token, by the mixing strategy.
double attention_fraction(const Recipe& recipe) {
  constexpr int64_t kSequences = 256;
  const auto mixing = make_mixing(recipe.mixing, recipe.model, recipe.data.context);
  double sum = 0;
  for (int64_t i = 0; i < kSequences; ++i)
    sum += mixing->schedule(0, i, 0, recipe.data.context, static_cast<double>(i) / kSequences)
               .attention_fraction(recipe.model.num_hidden_layers);
  return sum / kSequences;
}

// GFLOP/s of a training step of all layers, from steps of one and of four: a layer takes a third of what is between.
double predict_gflops(const Recipe& recipe, at::Device device) {
  bench::TrainBenchOptions options;
  options.presets = {recipe.model.mixers.size() > 1      ? "oryx-gdn-tiny"
                     : recipe.model.has(Mode::attention) ? "transformer-tiny"
                                                         : "gdn-tiny"};
  // On a CPU a step of a large model's whole batch would take minutes.
  options.length = device.is_cpu() ? std::min<int64_t>(recipe.data.context, 1024) : recipe.data.context;
  options.batch = device.is_cpu() ? options.length : std::min(recipe.train.micro_batch_tokens, 8 * options.length);
  options.precision = recipe.train.precision;
  options.budget_s = 10;
  const Json shape = recipe.model.to_json();
  for (const char* key : {"hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "value_head_dim",
                          "intermediate_size", "mixers", "conv_activation"})
    options.set.push_back(fmt::format("model.{}={}", key, shape.at(key).dump()));
  options.complete(device);
  bench::StepTime steps[2];
  for (const int i : {0, 1}) {
    bench::TrainBenchOptions cut = options;
    cut.set.push_back(fmt::format("model.num_hidden_layers={}", 1 + 3 * i));
    const auto time = bench::time_steps(cut, device);
    if (!time) throw Interrupted{};
    steps[i] = *time;
  }
  const double thirds = static_cast<double>(recipe.model.num_hidden_layers - 1) / 3;
  const auto of_all = [&](double one, double four) { return one + thirds * (four - one); };
  return of_all(steps[0].flops, steps[1].flops) / of_all(steps[0].seconds, steps[1].seconds) / 1e9;
}

// Training's cost, with AdamW: what another optimizer adds is spread over a batch that is far larger than those
// measured here. Returns {device, models [{name, tokens, runs, flops, gflops, hours}], hours}.
Json predict_cost(const Comparison& comparison, const Common& common) {
  Json out{{"device", common.device}, {"models", Json::array()}};
  double hours = 0;
  for (const auto& [name, recipes] : comparison.models) {
    const Recipe& recipe = recipes.front();
    Progress::say(name);
    const double gflops = predict_gflops(recipe, common.torch_device());
    const double flops = bench::training_flops(recipe, attention_fraction(recipe)) *
                         static_cast<double>(recipe.train.tokens) * static_cast<double>(recipes.size());
    out["models"].push_back({{"name", name},
                             {"tokens", recipe.train.tokens},
                             {"runs", recipes.size()},
                             {"flops", flops},
                             {"gflops", gflops},
                             {"hours", flops / gflops / 1e9 / 3600}});
    hours += flops / gflops / 1e9 / 3600;
  }
  out["hours"] = hours;
  return out;
}

std::string cost_text(const Json& cost) {
  std::string out =
      fmt::format("Training on this {}, predicted from steps of one and of four layers of each model:\n\n",
                  cost.at("device") == "cpu" ? "CPU" : "GPU");
  for (const Json& model : cost.at("models"))
    out += fmt::format("{:<20} {:>2} x {:>6} tokens  {:>9.3g} flops at {:>8.0f} GFLOP/s  {:>10.1f} h\n",
                       model.at("name").get<std::string>(), model.at("runs").get<int64_t>(),
                       human_count(model.at("tokens").get<double>()), model.at("flops").get<double>(),
                       model.at("gflops").get<double>(), model.at("hours").get<double>());
  return out + fmt::format("\n{:.1f} hours in all.\n", cost.at("hours").get<double>());
}

class Reproduction {
 public:
  // `scale`: its name in the report.
  Reproduction(ReproducePlan plan, const ReproduceOptions& options, std::string scale, const Common& common)
      : plan_(std::move(plan)),
        scale_(std::move(scale)),
        tasks_(fs::path(options.project) / "tasks"),
        out_(options.out),
        options_(options),
        common_(common),
        run_(plan_.comparison, out_, options.resume || !options.run.empty(), common.torch_device()) {}

  // The signal that ended training early, or 0.
  int run_one() {
    const auto [model, seed] = parse_run(options_.run, plan_.comparison);
    if (const int signal = run_.run_one(model, seed); signal != 0) return signal;
    const Comparison& comparison = plan_.comparison;
    evaluate_run(run_folder(out_, comparison.models[model].name, comparison.seeds[seed]), plan_.evaluation, tasks_,
                 false, common_);
    return 0;
  }

  // Likewise.
  int run() {
    const std::vector<std::string> command{"reproduce", "--config", options_.config, "--project", options_.project};
    if (const int signal = run_all(run_, command, options_.set, options_.jobs, common_); signal != 0) return signal;
    for (size_t i = 0; i < plan_.comparison.seeds.size(); ++i)
      for (const auto& model : plan_.comparison.models) {
        const int64_t seed = plan_.comparison.seeds[i];
        Progress::say(fmt::format("{}, seed {}: evaluation", model.name, seed));
        evaluations_[model.name][std::to_string(seed)] =
            evaluate_run(run_folder(out_, model.name, seed), plan_.evaluation, tasks_, i == 0, common_);
        write_reports();
      }
    finished_ = true;
    write_reports();
    return 0;
  }

  const Json& results() const { return results_; }

 private:
  void write_reports() {
    results_ = {
        {"oryx", ORYX_VERSION},
        {"scale", scale_},
        {"finished", finished_},
        {"machine", {{"processor", processor()}, {"threads", at::get_num_threads()}, {"device", common_.device}}},
        {"evaluation", plan_.evaluation.to_json()},
        {"comparison", run_.results()}};
    results_.update(reproduction_results(run_.results(), evaluations_));
    write_file_atomically(out_ / "reproduction.json", results_.dump(1) + "\n");
    write_file_atomically(out_ / "reproduction.md", reproduction_markdown(results_));
    write_file_atomically(out_ / "reproduction.html", reproduction_page(results_));
  }

  ReproducePlan plan_;
  std::string scale_;
  fs::path tasks_, out_;
  const ReproduceOptions& options_;
  const Common& common_;
  ComparisonRun run_;
  bool finished_ = false;
  Json evaluations_ = Json::object(), results_;
};

void run(ReproduceOptions options, const Common& common) {
  const bool own = !options.config.empty();
  if (!own) options.config = fs::path(options.project) / "configs" / fmt::format("reproduce-{}.toml", options.scale);
  const fs::path config = options.config;
  require(fs::exists(config), "{} is missing; give the project's folder with --project, or a file with --config",
          config.string());
  ReproducePlan plan = ReproducePlan::load(config, options.set);
  check_plan(plan.evaluation, fs::path(options.project) / "tasks");
  if (options.cost || (!own && options.scale == "full" && !options.yes)) {
    const Json cost = predict_cost(plan.comparison, common);
    if (common.json) return Common::print(cost);
    std::printf("%s", cost_text(cost).c_str());
    if (!options.cost) std::printf("Nothing was trained; --yes begins.\n");
    return;
  }
  if (options.out.empty()) options.out = "out" / config.stem();
  const fs::path out = options.out;
  make_out_folder(out, "reproduce");
  std::optional<RunLock> lock;
  if (options.run.empty()) lock.emplace(out);
  const auto begin = std::chrono::steady_clock::now();
  Reproduction reproduction(std::move(plan), options, own ? config.stem().string() : options.scale, common);
  const int signal = options.run.empty() ? reproduction.run() : reproduction.run_one();
  if (signal != 0) {
    std::fprintf(stderr, "stopped; --resume goes on from there\n");
    if (signal == SIGINT) throw Interrupted{};
    return;
  }
  if (!options.run.empty()) return;
  if (common.json) return Common::print(reproduction.results());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%s\nDone in %s. The report: %s\n", claims_markdown(reproduction.results()).c_str(),
              human_duration(seconds).c_str(), (out / "reproduction.html").c_str());
}

}  // namespace

void add_reproduce(CLI::App& app, Common& common) {
  auto options = std::make_shared<ReproduceOptions>();
  CLI::App* command = app.add_subcommand(
      "reproduce", "Train baselines, multi-mixer models and hybrids on the same tokens, and judge the paper's claims");
  command->add_option("--scale", options->scale, "demo (half an hour on two cores), small, or full")
      ->check(CLI::IsMember({"demo", "small", "full"}))
      ->capture_default_str();
  command->add_option("--config", options->config, "A file of your own in place of a scale")->excludes("--scale");
  command->add_option("--out", options->out, "Folder of runs and report (default: out/reproduce-SCALE)");
  command->add_option("--project", options->project, "The project's folder, with configs/, data/ and tasks/")
      ->capture_default_str();
  command->add_option("--set", options->set, "Replace a key of the file: table.key=value, seeds=[0, 1]");
  add_run_options(*command, options->jobs, options->run);
  command->add_flag("--resume", options->resume, "Go on with what is in --out");
  command->add_flag("--cost", options->cost, "Predict what training takes on this machine, and stop");
  command->add_flag("--yes", options->yes, "Train at full scale, which otherwise only tells its cost");
  command->callback([options, &common] { run(*options, common); });
}

}  // namespace oryx::cli
