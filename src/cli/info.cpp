#include <filesystem>

#include "base/error.h"
#include "base/progress.h"
#include "cli/info_train.h"
#include "cli/options.h"

namespace oryx::cli {
namespace {

ModelConfig find_config(const std::string& name) {
  if (std::filesystem::exists(name)) return ModelConfig::load(name);
  require(name.find('/') == std::string::npos, "{}: no such model directory", name);
  return preset(name);
}

Json to_json(const ModelConfig& config) {
  const ModelInfo info = model_info(config);
  const auto& p = info.parameters;
  Json json{{"parameters",
             {{"total", p.total},
              {"embedding", p.embedding},
              {"shared", p.shared},
              {"attention", p.attention},
              {"recurrent", p.recurrent}}},
            {"tie_ratio", Json::object()},
            {"flops_per_token", Json::object()},
            {"cache_bytes_per_token", info.cache_bytes_per_token},
            {"state_bytes", info.state_bytes}};
  if (info.tie_ratio_attention) json["tie_ratio"]["attention"] = *info.tie_ratio_attention;
  if (info.tie_ratio_recurrent) json["tie_ratio"]["recurrent"] = *info.tie_ratio_recurrent;
  if (info.flops_attention) json["flops_per_token"]["attention"] = *info.flops_attention;
  if (info.flops_recurrent) json["flops_per_token"]["recurrent"] = *info.flops_recurrent;
  json["config"] = config.to_json();
  return json;
}

void print_text(const ModelConfig& config) {
  const ModelInfo info = model_info(config);
  const auto& p = info.parameters;
  const auto line = [](const char* name, const std::string& value) { std::printf("%-24s %s\n", name, value.c_str()); };
  const auto share = [&](int64_t n) { return fmt::format("{:>13} ({})", n, human_count(static_cast<double>(n))); };
  std::string mixers;
  for (Mixer mixer : config.mixers) mixers += (mixers.empty() ? "" : ", ") + std::string(mixer_name(mixer));
  line("mixers", mixers);
  line("layers x width", fmt::format("{} x {}", config.num_hidden_layers, config.hidden_size));
  line("heads (kv), dims", fmt::format("{} ({}), {} and {}", config.num_attention_heads, config.num_key_value_heads,
                                       config.head_dim, config.value_head_dim));
  line("parameters", share(p.total));
  line("  embedding", share(p.embedding));
  line("  shared by both mixers", share(p.shared));
  line("  attention alone", share(p.attention));
  line("  recurrence alone", share(p.recurrent));
  if (info.tie_ratio_attention) line("tie ratio, attention", fmt::format("{:.4f}", *info.tie_ratio_attention));
  if (info.tie_ratio_recurrent) line("tie ratio, recurrence", fmt::format("{:.4f}", *info.tie_ratio_recurrent));
  if (info.flops_attention) line("flops/token, attention", human_count(*info.flops_attention));
  if (info.flops_recurrent) line("flops/token, recurrence", human_count(*info.flops_recurrent));
  line("cache bytes/token", human_bytes(static_cast<double>(info.cache_bytes_per_token)));
  line("state bytes/sequence", human_bytes(static_cast<double>(info.state_bytes)));
}

}  // namespace

void add_info(CLI::App& app, Common& common) {
  struct Options {
    std::string name, recipe;
    std::vector<std::string> set;
    int ranks = 1;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("info", "Parameters, tie ratio, flops and cache sizes of a preset or model");
  command->add_option("MODEL", options->name, "A preset or a model directory; left out with --train");
  command->add_option("--train", options->recipe, "A recipe: its model, and the memory that a step of training takes");
  command->add_option("--set", options->set, "Replace a key of the recipe: table.key=value");
  command->add_option("--ranks", options->ranks, "With --train: the processes that share the work")
      ->check(CLI::PositiveNumber);
  command->callback([options, &common] {
    require(options->name.empty() != options->recipe.empty(), "info wants either MODEL or --train RECIPE");
    require(!options->recipe.empty() || options->set.empty(), "--set goes with --train RECIPE");
    if (options->recipe.empty()) {
      const ModelConfig config = find_config(options->name);
      if (common.json)
        Common::print(to_json(config));
      else
        print_text(config);
      return;
    }
    const TrainInfo info = train_info(options->recipe, options->set, common.torch_device(), options->ranks);
    if (common.json) {
      Json json = to_json(info.model);
      json["train"] = info.to_json();
      Common::print(json);
    } else {
      print_text(info.model);
      info.print();
    }
  });
}

}  // namespace oryx::cli
