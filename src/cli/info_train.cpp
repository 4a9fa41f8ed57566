#include "cli/info_train.h"

#include <cstdio>

#include "base/progress.h"
#include "data/tokenizer.h"

namespace oryx::cli {

TrainInfo train_info(const std::string& path, const std::vector<std::string>& overrides, at::Device device, int ranks) {
  Json json = load_toml(path);
  for (const std::string& assignment : overrides) apply_override(json, assignment);
  Recipe recipe = Recipe::from_json(json, path, std::filesystem::path(path).parent_path());
  const auto& data = recipe.data;
  if (!recipe.vocab_given && !data.recall)
    recipe.model.vocab_size = data.tokenizer.empty() ? data.vocab : Tokenizer::load(data.tokenizer).vocab_size();
  TrainInfo info;
  info.model = recipe.model;
  info.memory = predict_step_memory(recipe, device, ranks);
  return info;
}

Json TrainInfo::to_json() const {
  return {{"peak_bytes", memory.peak},
          {"weights", memory.weights},
          {"gradients", memory.gradients},
          {"optimizer", memory.optimizer},
          {"activations", memory.activations},
          {"program", memory.program},
          {"checkpoint_copy", memory.checkpoint_copy}};
}

void TrainInfo::print() const {
  const auto line = [](const char* name, int64_t bytes) {
    std::printf("%-24s %s\n", name, human_bytes(static_cast<double>(bytes)).c_str());
  };
  line("peak memory of a step", memory.peak);
  line("  weights", memory.weights);
  line("  gradients", memory.gradients);
  line("  optimizer", memory.optimizer);
  line("  activations", memory.activations);
  if (memory.program > 0) line("  program", memory.program);
  line("a checkpoint's copy", memory.checkpoint_copy);
}

}  // namespace oryx::cli
