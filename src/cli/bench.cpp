#include <cstdio>

#include "base/error.h"
#include "bench/accuracy.h"
#include "bench/ops_bench.h"
#include "bench/results.h"
#include "cli/options.h"

namespace oryx::cli {
namespace {

void add_ops(CLI::App& bench, Common& common) {
  auto options = std::make_shared<bench::OpsOptions>();
  CLI::App* command = bench.add_subcommand("ops", "The operations beside what this machine can do at most");
  command->add_option("--ops", options->ops, "Which, by commas (default: all)")->delimiter(',');
  command->add_option("--lengths", options->lengths, "Tokens of a sequence, by commas (512,2048,8192,32768)")
      ->delimiter(',');
  command->add_option("--dims", options->dims, "Head dims, by commas (64,128)")->delimiter(',');
  command->add_option("--heads", options->heads, "Heads (8); one-token steps have 16 of 128")
      ->check(CLI::PositiveNumber);
  command->add_option("--dtypes", options->dtypes, "fp32,bf16 or one of them; --dtype means the same here")
      ->delimiter(',');
  command->add_option("--passes", options->passes, "forward,forward+backward or one of them")->delimiter(',');
  command->add_option("--budget", options->budget_s, "Seconds of samples for each case (2)");
  command->add_flag("--quick", options->quick, "Small sizes and few samples, to see that everything runs");
  command->callback([options, command, &common] {
    const CLI::App* app = command->get_parent()->get_parent();
    if (options->dtypes.empty() && app->count("--dtype") > 0) options->dtypes = {common.dtype};
    options->complete();
    const Json result = bench::bench_ops(*options, common.torch_device());
    if (common.json) return Common::print(result);
    std::printf("%s", bench::ops_report(result).c_str());
  });
}

void add_accuracy(CLI::App& bench, Common& common) {
  auto options = std::make_shared<bench::AccuracyOptions>();
  CLI::App* command = bench.add_subcommand("accuracy", "The operations' errors beside those of naive arithmetic");
  command->add_option("--ops", options->ops, "Which, by commas (default: all)")->delimiter(',');
  command->add_option("--dtypes", options->dtypes, "fp32,bf16 or one of them; --dtype means the same here")
      ->delimiter(',');
  command->add_flag("--quick", options->quick, "Short sequences, to see that everything runs");
  command->callback([options, command, &common] {
    const CLI::App* app = command->get_parent()->get_parent();
    if (options->dtypes.empty() && app->count("--dtype") > 0) options->dtypes = {common.dtype};
    options->complete();
    require(common.torch_device().is_cpu(), "bench accuracy compares on the CPU only; leave --device out");
    const Json result = bench::bench_accuracy(*options);
    if (common.json) return Common::print(result);
    std::printf("%s", bench::accuracy_report(result).c_str());
  });
}

}  // namespace

void add_bench(CLI::App& app, Common& common) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed and memory");
  bench->require_subcommand(1);
  bench->fallthrough();
  add_ops(*bench, common);
  add_accuracy(*bench, common);
}

}  // namespace oryx::cli
