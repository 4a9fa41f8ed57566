#include "train/trainer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <thread>

#include "base/error.h"
#include "base/progress.h"
#include "cli/options.h"

namespace oryx::cli {

static void print_recipe(const Json& recipe) {
  std::fprintf(stderr, "%s\n", to_toml(recipe).c_str());
}

void add_train(CLI::App& app, Common& common) {
  struct Options {
    std::string recipe, out;
    std::vector<std::string> set;
    bool resume = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("train", "Train a model after a recipe");
  command->add_option("RECIPE", options->recipe, "A TOML file")->required();
  command->add_option("--out", options->out, "Run directory (default: out/RECIPE's name)");
  command->add_option("--set", options->set, "Replace a key of the recipe: table.key=value");
  command->add_flag("--resume", options->resume, "Go on from the newest checkpoint in --out, if there is one");
  command->callback([options, &common] {
    const std::filesystem::path path = options->recipe;
    Json json = load_toml(path);
    for (const std::string& assignment : options->set) apply_override(json, assignment);
    const Recipe recipe = Recipe::from_json(json, options->recipe, path.parent_path());
    const std::filesystem::path out = options->out.empty() ? "out" / path.stem() : std::filesystem::path(options->out);
    const Launch launch = Launch::from_environment();
    if (launch.local_ranks > 1 && common.threads == 0)
      at::set_num_threads(std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / launch.local_ranks));
    const at::Device device = common.torch_device(launch.local_rank);
    const TrainResult result = train(recipe, {out, options->resume, device, launch, print_recipe});
    if (launch.rank != 0) {
      // Rank 0 speaks for all.
    } else if (common.json)
      Common::print({{"steps", result.steps},
                     {"tokens", result.tokens},
                     {"loss", std::isfinite(result.loss) ? Json(result.loss) : Json()},
                     {"skipped", result.skipped},
                     {"step_peak_bytes", result.step_peak_bytes},
                     {"seconds", result.seconds},
                     {"finished", result.stopped_by == 0},
                     {"model", (out / "model").string()}});
    else if (result.stopped_by == 0)
      std::printf("%s: %s tokens, loss %.4f, %s\n", (out / "model").c_str(),
                  human_count(static_cast<double>(result.tokens)).c_str(), result.loss,
                  human_duration(result.seconds).c_str());
    else
      std::fprintf(stderr, "stopped at step %lld; --resume goes on from there\n", static_cast<long long>(result.steps));
    if (result.stopped_by == SIGINT) throw Interrupted{};
  });
}

}  // namespace oryx::cli
