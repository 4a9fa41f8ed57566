#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace oryx {

enum class Mixer : uint8_t { attention, mamba2, gated_deltanet };
const char* mixer_name(Mixer mixer);  // as in config.json

// How one token is served: by softmax attention or by the model's recurrent mixer.
enum class Mode : uint8_t { attention, recurrent };
const char* mode_name(Mode mode);

// The shape of a model and every choice in its design. The members are config.json's keys (Hugging Face names where
// they exist); sizes in elements.
struct ModelConfig {
  int64_t vocab_size = 32000;
  int64_t hidden_size = 512;                                           // D
  int64_t num_hidden_layers = 8;                                       // L
  int64_t num_attention_heads = 8;                                     // H, query heads
  int64_t num_key_value_heads = 8;                                     // Hkv, divides H
  int64_t head_dim = 64;                                               // Kd, of queries and keys
  int64_t value_head_dim = 64;                                         // Vd
  int64_t intermediate_size = 1408;                                    // F, of the SwiGLU
  std::vector<Mixer> mixers{Mixer::attention, Mixer::gated_deltanet};  // attention, a recurrence, or both in this order
  int64_t conv_kernel = 4;                                             // W
  std::string conv_activation = "silu";   // "silu" | "none"; the default follows the recurrence: "none" for mamba2
  std::string query_activation = "silu";  // "silu" | "none", of the queries of Gated DeltaNet
  double rope_theta = 10000.0;            // 0: no rotary embedding
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = true;
  int64_t max_position_embeddings = 2048;  // training context; longer sequences are allowed
  double initializer_range = 0.02;
  std::string dtype = "float32";  // of the stored weights: "float32" | "bfloat16"
  std::optional<int64_t> bos_token_id, eos_token_id, pad_token_id;
  Json extra = Json::object();  // anything else; kept, never read

  bool has(Mode mode) const;
  std::optional<Mixer> recurrent() const;  // the recurrent mixer, if any
  // InputError naming the key, what it is and what it must be: sizes positive, Hkv divides H, Kd even when rope_theta
  // is not 0, token ids inside the vocabulary, ...
  void validate() const;

  static ModelConfig from_json(const Json& json, const std::string& source);  // strict, validated
  static ModelConfig load(const std::filesystem::path& directory);            // DIRECTORY/config.json
  // Every key, so that a file says all that it means; query_activation, which other readers of the format may not know,
  // where it is not the default.
  Json to_json() const;
  bool operator==(const ModelConfig&) const = default;
};

// {transformer, mamba2, gdn, oryx-mamba2, oryx-gdn}-{tiny, 10m, 50m, 180m, 440m, 880m, 1.4b}. Of one size, all kinds
// have the same number of parameters without embeddings within 3%. InputError with a suggestion for another name.
ModelConfig preset(std::string_view name);
std::vector<std::string> preset_names();

// A weight of the model: its name in the file and its shape, in the order of CONTRACT section 3.
struct WeightSpec {
  enum class Use : uint8_t { embedding, shared, attention, recurrent };             // who reads it
  enum class Init : uint8_t { normal, normal_scaled, ones, conv, a_log, dt_bias };  // normal_scaled: / sqrt(2 L)
  std::string name;
  std::vector<int64_t> shape;
  Use use;
  Init init;
  bool decay;  // whether weight decay applies
};
std::vector<WeightSpec> weight_specs(const ModelConfig& config);

// What `oryx info` prints. Parameters: shared are those that both modes read, attention/recurrent those of one mode
// only.
struct ModelInfo {
  struct {
    int64_t total = 0, embedding = 0, shared = 0, attention = 0, recurrent = 0;
  } parameters;
  // shared / (shared + own), embeddings left out; absent for a mode that the model does not have.
  std::optional<double> tie_ratio_attention, tie_ratio_recurrent;
  // Forward flops of one token (2 per multiply-add; attention at half of max_position_embeddings keys; the chunked
  // recurrences at chunk 64), the head included.
  std::optional<double> flops_attention, flops_recurrent;
  int64_t cache_bytes_per_token = 0;  // keys, values, gates of all layers in the config's dtype, gates fp32
  int64_t state_bytes = 0;            // fp32 state and conv tails of all layers, one sequence
};
ModelInfo model_info(const ModelConfig& config);

}  // namespace oryx
