#include <csignal>
#include <cstdio>
#include <optional>

#include "cli/compare_report.h"
#include "cli/comparison_run.h"
#include "cli/options.h"
#include "cli/run_pool.h"
#include "train/run_lock.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

struct CompareOptions {
  std::string comparison, out, run;
  std::vector<std::string> set;
  bool resume = false;
  int jobs = 1;
};

}  // namespace

void add_compare(CLI::App& app, Common& common) {
  auto options = std::make_shared<CompareOptions>();
  CLI::App* command = app.add_subcommand("compare", "Train several models on the same tokens, and tell them apart");
  command->add_option("COMPARISON", options->comparison, "A TOML file: a recipe, [[models]], seeds")->required();
  command->add_option("--out", options->out, "Folder of runs and report (default: out/COMPARISON's name)");
  command->add_option("--set", options->set, "Replace a key of what is common: table.key=value, seeds=[0, 1]");
  command->add_flag("--resume", options->resume, "Go on with the comparison in --out, if there is one");
  add_run_options(*command, options->jobs, options->run);
  command->callback([options, &common] {
    const fs::path path = options->comparison;
    Comparison comparison = Comparison::load(path, options->set);
    const fs::path out = options->out.empty() ? "out" / path.stem() : fs::path(options->out);
    make_out_folder(out, "compare");
    const bool one = !options->run.empty();
    const auto place = one ? parse_run(options->run, comparison) : std::pair<size_t, size_t>();
    std::optional<RunLock> lock;
    if (!one) lock.emplace(out);
    ComparisonRun compare(std::move(comparison), out, options->resume || one, common.torch_device());
    const int signal = one ? compare.run_one(place.first, place.second)
                           : run_all(compare, {"compare", options->comparison}, options->set, options->jobs, common);
    if (common.json && !one)
      Common::print(compare.results());
    else if (signal != 0)
      std::fprintf(stderr, "stopped; --resume goes on from there\n");
    else if (!one)
      std::printf("%s\n%s\n", comparison_markdown(compare.results()).c_str(), (out / "comparison.html").c_str());
    if (signal == SIGINT) throw Interrupted{};
  });
}

}  // namespace oryx::cli
