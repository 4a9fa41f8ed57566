#include "bench/train_bench.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/progress.h"
#include "bench/ceilings.h"
#include "bench/machine.h"
#include "bench/statistics.h"
#include "bench/trace.h"
#include "model/config.h"
#include "ops/common/parallel.h"
#include "train/stop_signal.h"
#include "train/trainer.h"

namespace oryx::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWarmUp = 2;  // steps; the optimizer's state is made in the first
constexpr size_t kMinSamples = 3, kMaxSamples = 15;
constexpr int64_t kMostSteps = kWarmUp + kMaxSamples + 3;  // fewer are taken: nothing is logged or saved

// A run's folder that is not kept.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "oryx-bench-XXXXXX").string();
    require(mkdtemp(name.data()) != nullptr, "{}: no folder can be made there; set TMPDIR to another place", name);
    path_ = name;
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

Recipe make_recipe(const TrainBenchOptions& options, const std::string& name) {
  const ModelConfig config = preset(name);
  Json json{
      {"model", {{"preset", name}, {"max_position_embeddings", options.length}, {"vocab_size", config.vocab_size}}},
      {"data",
       {{"sources", {{{"task", "random"}, {"vocab", config.vocab_size}, {"length", options.length}}}},
        {"context", options.length}}},
      {"mixing", {{"strategy", options.mixing}}},
      {"train",
       {{"tokens", options.batch * 1000},
        {"batch_tokens", options.batch},
        {"precision", options.precision},
        {"log_every", 1000}}}};
  for (const std::string& assignment : options.set) apply_override(json, assignment);
  Recipe recipe = Recipe::from_json(json, name, "");
  require(recipe.steps() >= kMostSteps,
          "--set: a budget of {} steps is too short to measure, which takes {}; leave train.tokens alone",
          recipe.steps(), kMostSteps);
  return recipe;
}

// A processor may have units that the loops do not use (AMX).
double flops_ceiling(const Ceilings& ceilings, const std::string& precision) {
  const double library = precision == "bf16" ? ceilings.bf16_library_gflops : ceilings.fp32_library_gflops;
  return std::max(ceilings.flops(precision), library * 1e9);
}

struct Enough {};

struct Steps {
  int64_t first = 0;  // that was timed
  std::vector<double> seconds;
  Json trace;
};

// Ordinary training, which the callback leaves when it has what it wants. A step is timed from one update to the next.
Steps take_steps(const Recipe& recipe, const TrainBenchOptions& options, c10::Device device) {
  using Clock = std::chrono::steady_clock;
  const ScratchFolder scratch;
  Steps steps;
  Clock::time_point last;
  double sum = 0;
  bool tracing = false;
  TrainOptions train_options{scratch.path(), false, device};
  train_options.before_update = [&](int64_t step, const LanguageModel&) {
    // On a GPU a step waits until the one before the last is done, so that the times from here to here are those of
    // steps, of the one before this.
    const Clock::time_point now = Clock::now();
    if (StopSignal::received() != 0) throw Enough{};
    if (tracing) {
      steps.trace = stop_trace(device, options.trace);
      throw Enough{};
    }
    if (step > kWarmUp) {
      if (steps.seconds.empty()) steps.first = device.is_cpu() ? step : step - 1;
      steps.seconds.push_back(std::chrono::duration<double>(now - last).count());
      sum += steps.seconds.back();
    }
    if (steps.seconds.size() >= kMaxSamples || (steps.seconds.size() >= kMinSamples && sum >= options.budget_s)) {
      if (options.trace.empty()) throw Enough{};
      tracing = true;
      start_trace(device);
    }
    last = Clock::now();
  };
  try {
    train(recipe, train_options);
  } catch (const Enough&) {
  }
  return steps;
}

// Of the tokens of the steps that were timed.
double attention_fraction(const Recipe& recipe, const Steps& steps) {
  const auto mixing = make_mixing(recipe.mixing, recipe.model, recipe.data.context);
  double sum = 0;
  const int64_t sequences = recipe.train.batch_tokens / recipe.data.context,
                count = static_cast<int64_t>(steps.seconds.size());
  for (int64_t step = steps.first; step < steps.first + count; ++step)
    for (int64_t i = 0; i < sequences; ++i)
      sum += mixing
                 ->schedule(static_cast<uint64_t>(recipe.train.seed), step, i, recipe.data.context,
                            static_cast<double>(step) / static_cast<double>(recipe.steps()))
                 .attention_fraction(recipe.model.num_hidden_layers);
  return sum / static_cast<double>(sequences * count);
}

// A row but for its part of the ceiling; nothing when a signal ended it.
Json measure_preset(const std::string& name, const TrainBenchOptions& options, c10::Device device, Json& trace) {
  const Recipe recipe = make_recipe(options, name);
  Steps steps;
  const auto peak = peak_bytes(device, [&] { steps = take_steps(recipe, options, device); });
  if (StopSignal::received() != 0) return {};
  trace = steps.trace;
  const ModelInfo info = model_info(recipe.model);
  const double fraction = attention_fraction(recipe, steps), seconds = median(steps.seconds);
  const double flops = training_flops(recipe, fraction);
  const double rate = static_cast<double>(recipe.train.batch_tokens) / seconds;
  return {{"preset", name},
          {"mixing", recipe.model.mixers.size() > 1 ? Json(recipe.mixing.strategy) : Json()},
          {"precision", recipe.train.precision},
          {"T", recipe.data.context},
          {"batch_tokens", recipe.train.batch_tokens},
          {"parameters", info.parameters.total - info.parameters.embedding},
          {"attention_fraction", fraction},
          {"flops_per_token", flops},
          {"ms", seconds * 1e3},
          {"spread", spread(steps.seconds)},
          {"samples", steps.seconds.size()},
          {"tokens_per_s", rate},
          {"gflops", rate * flops / 1e9},
          {"peak_bytes", peak ? Json(*peak) : Json()}};
}

}  // namespace

double training_flops(const Recipe& recipe, double attention_fraction) {
  const ModelInfo info = model_info(recipe.model);
  const double attention = info.flops_attention.value_or(0), recurrent = info.flops_recurrent.value_or(0);
  if (passes(recipe.mixing, recipe.model) == 2) return 3 * (attention + recurrent);
  return 3 * (attention_fraction * attention + (1 - attention_fraction) * recurrent);
}

void TrainBenchOptions::complete(c10::Device device) {
  std::vector<std::string> names = preset_names(), sizes, chosen;
  for (const std::string& name : names) {
    const std::string size = name.substr(name.rfind('-') + 1);
    if (std::ranges::find(sizes, size) == sizes.end()) sizes.push_back(size);
  }
  if (presets.empty()) {
    presets = {"tiny", "10m", "50m", "180m"};
    if (quick)
      presets = {"tiny"};
    else if (!device.is_cpu())
      presets = {"180m", "1.4b"};
  }
  for (const std::string& given : presets) {
    if (std::ranges::find(sizes, given) == sizes.end()) {
      preset(given);  // is there one?
      chosen.push_back(given);
      continue;
    }
    for (const std::string& name : names)
      if (name.ends_with("-" + given)) chosen.push_back(name);
  }
  presets = std::move(chosen);
  if (length == 0) length = quick ? 64 : device.is_cpu() ? 1024 : 4096;
  if (batch == 0) batch = std::max(length, quick ? int64_t{128} : device.is_cpu() ? int64_t{4096} : int64_t{32768});
  require(length >= 2, "--length: {} is not a number of tokens of 2 or more", length);
  require(batch % length == 0, "--batch: {} is not a multiple of the {} tokens of a sequence (--length)", batch,
          length);
  require(budget_s >= 0, "--budget: {} is not a time in seconds", budget_s);
  require(trace.empty() || presets.size() == 1, "--trace: give the one preset to trace, such as oryx-gdn-10m, not {}",
          presets.size());
  for (const std::string& name : presets) make_recipe(*this, name);
}

std::optional<StepTime> time_steps(const TrainBenchOptions& options, c10::Device device) {
  const Recipe recipe = make_recipe(options, options.presets.at(0));
  const Steps steps = take_steps(recipe, options, device);
  if (StopSignal::received() != 0) return {};
  const double flops = training_flops(recipe, attention_fraction(recipe, steps));
  return StepTime{median(steps.seconds), flops * static_cast<double>(recipe.train.batch_tokens)};
}

Json bench_train(const TrainBenchOptions& options, c10::Device device) {
  const OtherLoad load;
  const Ceilings before = measure_ceilings(device, options.quick);
  Json rows = Json::array(), trace;
  for (const std::string& name : options.presets) {
    Progress::say(name);
    Json row = measure_preset(name, options, device, trace);
    if (row.is_null()) break;
    const auto precision = row["precision"].get<std::string>();
    row["fraction_of_ceiling"] = row["gflops"].get<double>() * 1e9 / flops_ceiling(before, precision);
    rows.push_back(std::move(row));
  }
  const auto busy = load.cores();
  Json out{
      {"device", device.is_cpu() ? "cpu" : "cuda"},
      {"threads", ops::num_threads()},
      {"others_busy_cores", busy ? Json(*busy) : Json()},
      {"ceilings", before.to_json()},
      {"ceilings_after", measure_ceilings(device, options.quick).to_json()},
      {"formula",
       "flops of a token: 3 x (a x attention + (1 - a) x recurrent), the forward flops per token of `oryx info` at "
       "this length, a the fraction of the tokens in attention; the ceiling is the higher one of the loop and the "
       "library's matrix product"},
      {"rows", std::move(rows)}};
  if (!trace.is_null()) out["trace"] = std::move(trace);
  return out;
}

}  // namespace oryx::bench
