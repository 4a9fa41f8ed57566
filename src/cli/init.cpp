#include "base/error.h"
#include "base/files.h"
#include "cli/options.h"

namespace oryx::cli {

void add_init(CLI::App& app, Common& common) {
  struct Options {
    std::string preset, directory;
    uint64_t seed = 0;
    int64_t vocab = 0;
    std::vector<std::string> set;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("init", "Write a randomly initialised model");
  command->add_option("PRESET", options->preset, "For example oryx-gdn-10m")->required();
  command->add_option("DIR", options->directory, "The model directory to write")->required();
  command->add_option("--seed", options->seed, "Of the weights (default 0)");
  command->add_option("--vocab", options->vocab, "Vocabulary size (default: the preset's)")->check(CLI::PositiveNumber);
  command->add_option("--set", options->set, "Replace a key of config.json: key=value");
  command->callback([options, &common] {
    require(!std::filesystem::exists(options->directory), "{} exists; choose a directory that does not",
            options->directory);
    Json json = preset(options->preset).to_json();
    if (options->vocab > 0) json["vocab_size"] = options->vocab;
    for (const std::string& assignment : options->set) apply_override(json, assignment);
    const ModelConfig config = ModelConfig::from_json(json, options->preset);
    StagedDirectory staged(options->directory);
    LanguageModel::random(config, options->seed).save(staged.path());
    staged.commit();
    const auto total = model_info(config).parameters.total;
    if (common.json)
      Common::print({{"directory", options->directory}, {"parameters", total}});
    else
      std::printf("%s: %s, %lld parameters\n", options->directory.c_str(), options->preset.c_str(),
                  static_cast<long long>(total));
  });
}

}  // namespace oryx::cli
