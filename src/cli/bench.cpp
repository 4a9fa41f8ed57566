#include <csignal>
#include <cstdio>

#include "base/error.h"
#include "bench/accuracy.h"
#include "bench/ops_bench.h"
#include "bench/results.h"
#include "bench/train_bench.h"
#include "cli/options.h"
#include "train/stop_signal.h"

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

void add_steps(CLI::App& bench, Common& common) {
  auto options = std::make_shared<bench::TrainBenchOptions>();
  CLI::App* command =
      bench.add_subcommand("train", "Steps of training: tokens/s, flops, memory; in bf16 without --dtype");
  command->add_option("PRESET", options->presets, "Presets, or sizes: all of a size (default: tiny to 180m)");
  command->add_option("--length", options->length, "Tokens of a sequence (1024; 4096 on a GPU)");
  command->add_option("--batch", options->batch, "Tokens of a step (4096; 32768 on a GPU)");
  command->add_option("--mixing", options->mixing, "Strategy of models with two mixers")->capture_default_str();
  command->add_option("--set", options->set, "Any other key of the recipe: table.key=value");
  command->add_option("--budget", options->budget_s, "Seconds of samples for each preset")->capture_default_str();
  command->add_option("--trace", options->trace, "Write a Chrome trace of one step to this file, and sum it up");
  command->add_flag("--quick", options->quick, "Short sequences and few samples, to see that everything runs");
  command->callback([options, command, &common] {
    const CLI::App* app = command->get_parent()->get_parent();
    if (app->count("--dtype") > 0) options->precision = common.dtype;
    const c10::Device device = common.torch_device();
    options->complete(device);
    const Json result = bench::bench_train(*options, device);
    if (common.json)
      Common::print(result);
    else
      std::printf("%s", bench::train_report(result).c_str());
    if (StopSignal::received() == SIGINT) throw Interrupted{};
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
  add_steps(*bench, common);
  add_accuracy(*bench, common);
}

}  // namespace oryx::cli
