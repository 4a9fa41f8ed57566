#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace oryx {
namespace {

// Far above any real model, and low enough that no count of parameters, bytes or flops overflows: the largest product
// is layers * heads * head_dim * hidden_size * 4 bytes <= 2^12 * 2^10 * 2^10 * 2^17 * 2^2 = 2^53.
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
constexpr int64_t kMaxHidden = int64_t{1} << 17;
constexpr int64_t kMaxLayers = int64_t{1} << 12;
constexpr int64_t kMaxHeads = int64_t{1} << 10;
constexpr int64_t kMaxHeadDim = int64_t{1} << 10;
constexpr int64_t kMaxIntermediate = int64_t{1} << 20;
constexpr int64_t kMaxContext = int64_t{1} << 30;

constexpr Mixer kMixers[] = {Mixer::attention, Mixer::mamba2, Mixer::gated_deltanet};

void require_between(const char* key, int64_t value, int64_t low, int64_t high) {
  require(value >= low && value <= high, "'{}' is {}; it must be from {} to {}", key, value, low, high);
}

Mixer mixer_from_name(const std::string& name, const std::string& where) {
  std::vector<std::string> names;
  for (Mixer mixer : kMixers) {
    if (name == mixer_name(mixer)) return mixer;
    names.emplace_back(mixer_name(mixer));
  }
  input_error("{}: 'mixers' names '{}'; the mixers are attention, mamba2 and gated_deltanet{}", where, name,
              did_you_mean(name, names));
}

std::vector<Mixer> read_mixers(Fields& fields, const std::vector<Mixer>& fallback) {
  if (!fields.has("mixers")) return fallback;
  std::vector<Mixer> mixers;
  for (const std::string& name : fields.strings("mixers")) mixers.push_back(mixer_from_name(name, fields.where()));
  // Both orders mean the same model.
  std::sort(mixers.begin(), mixers.end());
  return mixers;
}

// Hugging Face writes null for a token that does not exist.
std::optional<int64_t> read_token(Fields& fields, const char* key) {
  if (fields.raw(key).is_null()) return std::nullopt;
  return fields.integer(key);
}

Json write_token(const std::optional<int64_t>& token) {
  return token ? Json(*token) : Json(nullptr);
}

}  // namespace

const char* mixer_name(Mixer mixer) {
  switch (mixer) {
    case Mixer::attention:
      return "attention";
    case Mixer::mamba2:
      return "mamba2";
    case Mixer::gated_deltanet:
      return "gated_deltanet";
  }
  return "unknown";
}

const char* mode_name(Mode mode) {
  return mode == Mode::attention ? "attention" : "recurrent";
}

std::optional<Mixer> ModelConfig::recurrent() const {
  for (Mixer mixer : mixers) {
    if (mixer != Mixer::attention) return mixer;
  }
  return std::nullopt;
}

bool ModelConfig::has(Mode mode) const {
  if (mode == Mode::recurrent) return recurrent().has_value();
  return std::find(mixers.begin(), mixers.end(), Mixer::attention) != mixers.end();
}

void ModelConfig::validate() const {
  require_between("vocab_size", vocab_size, 1, kMaxVocabulary);
  require_between("hidden_size", hidden_size, 1, kMaxHidden);
  require_between("num_hidden_layers", num_hidden_layers, 1, kMaxLayers);
  require_between("num_attention_heads", num_attention_heads, 1, kMaxHeads);
  require_between("num_key_value_heads", num_key_value_heads, 1, kMaxHeads);
  require_between("head_dim", head_dim, 1, kMaxHeadDim);
  require_between("value_head_dim", value_head_dim, 1, kMaxHeadDim);
  require_between("intermediate_size", intermediate_size, 1, kMaxIntermediate);
  require_between("conv_kernel", conv_kernel, 2, 16);
  require_between("max_position_embeddings", max_position_embeddings, 1, kMaxContext);
  require(num_attention_heads % num_key_value_heads == 0,
          "'num_key_value_heads' is {}; it must divide 'num_attention_heads', which is {}", num_key_value_heads,
          num_attention_heads);

  const bool valid_mixers =
      mixers.size() == 1 || (mixers.size() == 2 && mixers[0] == Mixer::attention && mixers[1] != Mixer::attention);
  require(
      valid_mixers,
      "'mixers' must be [\"attention\"], [\"mamba2\"], [\"gated_deltanet\"], or attention and one of the other two");
  require(conv_activation == "silu" || conv_activation == "none",
          "'conv_activation' is \"{}\"; it must be \"silu\" or \"none\"", conv_activation);
  require(query_activation == "silu" || query_activation == "none",
          "'query_activation' is \"{}\"; it must be \"silu\" or \"none\"", query_activation);
  require(dtype == "float32" || dtype == "bfloat16", "'dtype' is \"{}\"; it must be \"float32\" or \"bfloat16\"",
          dtype);
  // Negated comparisons would let NaN pass.
  require(rope_theta == 0 || (rope_theta >= 1 && rope_theta <= 1e12),
          "'rope_theta' is {}; it must be 0 (no rotary embedding) or from 1 to 1e12", rope_theta);
  require(rope_theta == 0 || head_dim % 2 == 0, "'head_dim' is {}; it must be even when 'rope_theta' is not 0",
          head_dim);
  require(rms_norm_eps > 0 && rms_norm_eps < 1, "'rms_norm_eps' is {}; it must lie between 0 and 1", rms_norm_eps);
  require(initializer_range > 0 && initializer_range <= 10, "'initializer_range' is {}; it must be above 0, at most 10",
          initializer_range);
  const auto check_token = [&](const char* key, const std::optional<int64_t>& token) {
    require(!token || (*token >= 0 && *token < vocab_size), "'{}' is {}; it must be below 'vocab_size', which is {}",
            key, token.value_or(0), vocab_size);
  };
  check_token("bos_token_id", bos_token_id);
  check_token("eos_token_id", eos_token_id);
  check_token("pad_token_id", pad_token_id);
  require(extra.is_object(), "'extra' must be an object");
}

ModelConfig ModelConfig::from_json(const Json& json, const std::string& source) {
  Fields fields(json, source);
  ModelConfig config;
  fields.choice("model_type", {"oryx"}, "oryx");
  const auto architectures = fields.strings("architectures", std::vector<std::string>{"OryxForCausalLM"});
  require(architectures == std::vector<std::string>{"OryxForCausalLM"},
          "{}: 'architectures' must be [\"OryxForCausalLM\"]; this is another kind of model", source);
  config.vocab_size = fields.integer("vocab_size", config.vocab_size);
  config.hidden_size = fields.integer("hidden_size", config.hidden_size);
  config.num_hidden_layers = fields.integer("num_hidden_layers", config.num_hidden_layers);
  config.num_attention_heads = fields.integer("num_attention_heads", config.num_attention_heads);
  // Left out, these follow their partner, as they do in Hugging Face configurations.
  config.num_key_value_heads = fields.integer("num_key_value_heads", config.num_attention_heads);
  config.head_dim = fields.integer("head_dim", config.head_dim);
  config.value_head_dim = fields.integer("value_head_dim", config.head_dim);
  config.intermediate_size = fields.integer("intermediate_size", config.intermediate_size);
  config.mixers = read_mixers(fields, config.mixers);
  config.conv_kernel = fields.integer("conv_kernel", config.conv_kernel);
  config.conv_activation =
      fields.choice("conv_activation", {"silu", "none"}, config.recurrent() == Mixer::mamba2 ? "none" : "silu");
  config.query_activation = fields.choice("query_activation", {"silu", "none"}, config.query_activation);
  config.rope_theta = fields.number("rope_theta", config.rope_theta);
  config.rms_norm_eps = fields.number("rms_norm_eps", config.rms_norm_eps);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", config.tie_word_embeddings);
  config.max_position_embeddings = fields.integer("max_position_embeddings", config.max_position_embeddings);
  config.initializer_range = fields.number("initializer_range", config.initializer_range);
  config.dtype = fields.choice("dtype", {"float32", "bfloat16"}, config.dtype);
  config.bos_token_id = read_token(fields, "bos_token_id");
  config.eos_token_id = read_token(fields, "eos_token_id");
  config.pad_token_id = read_token(fields, "pad_token_id");
  if (fields.has("extra")) config.extra = fields.raw("extra");
  fields.finish();
  try {
    config.validate();
  } catch (const InputError& error) {
    input_error("{}: {}", source, error.what());
  }
  return config;
}

ModelConfig ModelConfig::load(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  return from_json(load_json(path), path.string());
}

Json ModelConfig::to_json() const {
  Json names = Json::array();
  for (Mixer mixer : mixers) names.push_back(mixer_name(mixer));
  Json json = Json::object();
  json["model_type"] = "oryx";
  json["architectures"] = {"OryxForCausalLM"};
  json["vocab_size"] = vocab_size;
  json["hidden_size"] = hidden_size;
  json["num_hidden_layers"] = num_hidden_layers;
  json["num_attention_heads"] = num_attention_heads;
  json["num_key_value_heads"] = num_key_value_heads;
  json["head_dim"] = head_dim;
  json["value_head_dim"] = value_head_dim;
  json["intermediate_size"] = intermediate_size;
  json["mixers"] = names;
  json["conv_kernel"] = conv_kernel;
  json["conv_activation"] = conv_activation;
  if (query_activation != ModelConfig().query_activation) json["query_activation"] = query_activation;
  json["rope_theta"] = rope_theta;
  json["rms_norm_eps"] = rms_norm_eps;
  json["tie_word_embeddings"] = tie_word_embeddings;
  json["max_position_embeddings"] = max_position_embeddings;
  json["initializer_range"] = initializer_range;
  json["dtype"] = dtype;
  json["bos_token_id"] = write_token(bos_token_id);
  json["eos_token_id"] = write_token(eos_token_id);
  json["pad_token_id"] = write_token(pad_token_id);
  if (!extra.empty()) json["extra"] = extra;
  return json;
}

}  // namespace oryx
