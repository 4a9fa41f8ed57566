#include <array>

#include "base/error.h"
#include "model/config.h"

namespace oryx {
namespace {

struct Size {
  const char* name;
  int64_t hidden, layers, head_dim;
  // A model with one mixer has no second query projection; a wider MLP makes up for it, so that all kinds of one size
  // have the same number of parameters.
  int64_t intermediate_both, intermediate_single;
  int64_t context;
};
constexpr std::array<Size, 7> kSizes{{{"tiny", 128, 4, 32, 384, 432, 1024},
                                      {"10m", 384, 5, 64, 960, 1088, 1024},
                                      {"50m", 640, 9, 64, 1600, 1808, 1024},
                                      {"180m", 1024, 12, 64, 2816, 3168, 4096},
                                      {"440m", 1280, 20, 64, 3168, 3584, 4096},
                                      {"880m", 1792, 20, 64, 4608, 5216, 4096},
                                      {"1.4b", 2048, 24, 64, 5376, 6048, 4096}}};

struct Kind {
  const char* name;
  std::vector<Mixer> mixers;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> kinds{{"transformer", {Mixer::attention}},
                                       {"mamba2", {Mixer::mamba2}},
                                       {"gdn", {Mixer::gated_deltanet}},
                                       {"oryx-mamba2", {Mixer::attention, Mixer::mamba2}},
                                       {"oryx-gdn", {Mixer::attention, Mixer::gated_deltanet}}};
  return kinds;
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Kind& kind : kinds()) {
    for (const Size& size : kSizes) names.push_back(std::string(kind.name) + "-" + size.name);
  }
  return names;
}

ModelConfig preset(std::string_view name) {
  for (const Kind& kind : kinds()) {
    for (const Size& size : kSizes) {
      if (name != std::string(kind.name) + "-" + size.name) continue;
      ModelConfig config;
      config.hidden_size = size.hidden;
      config.num_hidden_layers = size.layers;
      config.head_dim = config.value_head_dim = size.head_dim;
      config.num_attention_heads = config.num_key_value_heads = size.hidden / size.head_dim;
      config.intermediate_size = kind.mixers.size() == 2 ? size.intermediate_both : size.intermediate_single;
      config.mixers = kind.mixers;
      config.conv_activation = config.recurrent() == Mixer::mamba2 ? "none" : "silu";
      // Attention finds a far key by the pairs that hardly turn until there: within 1,024 tokens 16 of 32 with this
      // base, 8 with 1e4. The recurrence reads keys unturned and wants all (docs/results/reproduce-small.md).
      config.rope_theta = 1e6;
      config.max_position_embeddings = size.context;
      return config;
    }
  }
  input_error(
      "no preset '{}'; a preset is one of transformer, mamba2, gdn, oryx-mamba2, oryx-gdn with one of -tiny, "
      "-10m, -50m, -180m, -440m, -880m, -1.4b{}",
      std::string(name), did_you_mean(name, preset_names()));
}

}  // namespace oryx
