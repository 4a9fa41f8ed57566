#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/files.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

ModelConfig read(const std::string& text) {
  return ModelConfig::from_json(parse_json(text, "c.json"), "c.json");
}

// Counted from the formulas of the layers, not from weight_specs.
int64_t parameters_without_embedding(const ModelConfig& c) {
  const int64_t D = c.hidden_size, H = c.num_attention_heads, G = c.num_key_value_heads, K = c.head_dim;
  const int64_t V = c.value_head_dim;
  int64_t layer = 2 * D + (G * K + G * V) * (D + c.conv_kernel) + 2 * H * V * D + V + 3 * D * c.intermediate_size;
  if (c.has(Mode::attention)) layer += H * K * D + H;
  if (c.has(Mode::recurrent)) layer += H * K * D + G * D + 2 * G;
  if (c.recurrent() == Mixer::gated_deltanet) layer += G * D;
  if (c.recurrent() == Mixer::mamba2) layer += 2 * H;
  return D + c.num_hidden_layers * layer;
}

TEST(Config, EveryKeyIsWrittenAndReadBack) {
  ModelConfig config;
  config.vocab_size = 301;
  config.hidden_size = 96;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 18;
  config.value_head_dim = 7;
  config.intermediate_size = 111;
  config.mixers = {Mixer::attention, Mixer::mamba2};
  config.conv_kernel = 3;
  config.conv_activation = "silu";
  config.query_activation = "none";
  config.rope_theta = 12345.678;
  config.rms_norm_eps = 1.0 / 3;
  config.tie_word_embeddings = false;
  config.max_position_embeddings = 77;
  config.initializer_range = 0.1;
  config.dtype = "bfloat16";
  config.bos_token_id = 0;
  config.eos_token_id = 300;
  config.extra["note"] = {1, "two"};
  const Json json = config.to_json();
  EXPECT_EQ(ModelConfig::from_json(json, "x"), config);
  EXPECT_EQ(read(json.dump()), config);
  std::set<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.insert(key);
  for (const char* key : {"model_type",
                          "architectures",
                          "vocab_size",
                          "hidden_size",
                          "num_hidden_layers",
                          "num_attention_heads",
                          "num_key_value_heads",
                          "head_dim",
                          "value_head_dim",
                          "intermediate_size",
                          "mixers",
                          "conv_kernel",
                          "conv_activation",
                          "query_activation",
                          "rope_theta",
                          "rms_norm_eps",
                          "tie_word_embeddings",
                          "max_position_embeddings",
                          "initializer_range",
                          "dtype",
                          "bos_token_id",
                          "eos_token_id",
                          "pad_token_id"}) {
    EXPECT_TRUE(keys.contains(key)) << key;
  }
  TemporaryDirectory directory;
  write_file_atomically(directory / "config.json", json.dump(2));
  EXPECT_EQ(ModelConfig::load(directory.path()), config);
  EXPECT_INPUT_ERROR(ModelConfig::load(directory / "none"), "none/config.json: No such file");
}

TEST(Config, DefaultsFollowTheirPartners) {
  EXPECT_EQ(read("{}"), ModelConfig());
  EXPECT_EQ(read(R"({"num_attention_heads": 4})").num_key_value_heads, 4);
  EXPECT_EQ(read(R"({"head_dim": 32})").value_head_dim, 32);
  EXPECT_EQ(read(R"({"mixers": ["attention", "mamba2"]})").conv_activation, "none");
  EXPECT_EQ(read(R"({"mixers": ["attention"]})").conv_activation, "silu");
  EXPECT_EQ(read(R"({"mixers": ["mamba2", "attention"]})").mixers,
            (std::vector<Mixer>{Mixer::attention, Mixer::mamba2}));
  EXPECT_EQ(read(R"({"bos_token_id": null})").bos_token_id, std::nullopt);
  EXPECT_EQ(read(R"({"rope_theta": 500000})").rope_theta, 500000.0);
  EXPECT_FALSE(ModelConfig().to_json().contains("query_activation"));  // others need not know it
}

TEST(Config, RefusalsNameTheKeyAndWhatWouldBeRight) {
  EXPECT_INPUT_ERROR(read(R"({"hiden_size": 5})"), "c.json: unknown key 'hiden_size'; did you mean 'hidden_size'?");
  EXPECT_NO_THROW(read(R"({"extra": {"hiden_size": 5}})"));
  EXPECT_INPUT_ERROR(read(R"({"extra": 5})"), "'extra' must be an object");
  EXPECT_INPUT_ERROR(read(R"([1])"), "c.json: must be a table");
  EXPECT_INPUT_ERROR(read(R"({"model_type": "llama"})"), "'model_type' must be one of oryx");
  EXPECT_INPUT_ERROR(read(R"({"architectures": ["LlamaForCausalLM"]})"), "[\"OryxForCausalLM\"]");
  EXPECT_INPUT_ERROR(read(R"({"vocab_size": "5"})"), "'vocab_size' must be an integer");
  EXPECT_INPUT_ERROR(read(R"({"vocab_size": 0})"), "'vocab_size' is 0; it must be from 1");
  EXPECT_INPUT_ERROR(read(R"({"num_hidden_layers": 9223372036854775807})"),
                     "'num_hidden_layers' is 9223372036854775807");
  EXPECT_INPUT_ERROR(read(R"({"num_attention_heads": 6, "num_key_value_heads": 4})"),
                     "'num_key_value_heads' is 4; it must divide 'num_attention_heads', which is 6");
  EXPECT_INPUT_ERROR(read(R"({"head_dim": 33})"), "'head_dim' is 33; it must be even when 'rope_theta' is not 0");
  EXPECT_NO_THROW(read(R"({"head_dim": 33, "rope_theta": 0})"));
  EXPECT_INPUT_ERROR(read(R"({"rope_theta": 0.5})"), "'rope_theta' is 0.5");
  EXPECT_INPUT_ERROR(read(R"({"rope_theta": -1})"), "'rope_theta' is -1");
  EXPECT_INPUT_ERROR(read(R"({"rms_norm_eps": 0})"), "'rms_norm_eps' is 0");
  EXPECT_INPUT_ERROR(read(R"({"initializer_range": 0})"), "'initializer_range' is 0");
  EXPECT_INPUT_ERROR(read(R"({"conv_kernel": 1})"), "'conv_kernel' is 1; it must be from 2 to 16");
  EXPECT_INPUT_ERROR(read(R"({"conv_activation": "relu"})"), "'conv_activation' must be one of silu, none");
  EXPECT_INPUT_ERROR(read(R"({"query_activation": "relu"})"), "'query_activation' must be one of silu, none");
  EXPECT_INPUT_ERROR(read(R"({"dtype": "float16"})"), "'dtype' must be one of float32, bfloat16");
  EXPECT_INPUT_ERROR(read(R"({"tie_word_embeddings": 1})"), "true or false");
  EXPECT_INPUT_ERROR(read(R"({"mixers": []})"), "'mixers' must be [\"attention\"]");
  EXPECT_INPUT_ERROR(read(R"({"mixers": ["mamba2", "gated_deltanet"]})"), "'mixers' must be");
  EXPECT_INPUT_ERROR(read(R"({"mixers": ["attention", "attention"]})"), "'mixers' must be");
  EXPECT_INPUT_ERROR(read(R"({"mixers": ["mamba"]})"), "'mixers' names 'mamba'");
  EXPECT_INPUT_ERROR(read(R"({"mixers": "mamba2"})"), "array of strings");
  EXPECT_INPUT_ERROR(read(R"({"eos_token_id": 32000})"), "'eos_token_id' is 32000; it must be below 'vocab_size'");
  EXPECT_INPUT_ERROR(read(R"({"eos_token_id": [1, 2]})"), "'eos_token_id' must be an integer");
  ModelConfig nan;
  nan.rope_theta = std::nan("");
  EXPECT_INPUT_ERROR(nan.validate(), "rope_theta");
}

TEST(Config, TheLargestSizesDoNotOverflow) {
  ModelConfig config = read(R"({"vocab_size": 16777216, "hidden_size": 131072, "num_hidden_layers": 4096,
      "num_attention_heads": 1024, "head_dim": 1024, "intermediate_size": 1048576, "conv_kernel": 16,
      "max_position_embeddings": 1073741824, "tie_word_embeddings": false})");
  const ModelInfo info = model_info(config);
  EXPECT_EQ(info.parameters.embedding, int64_t{1} << 42);
  EXPECT_EQ(info.parameters.total - info.parameters.embedding, parameters_without_embedding(config));
  EXPECT_GT(info.state_bytes, int64_t{1} << 44);
  EXPECT_LT(info.state_bytes, int64_t{1} << 46);
  EXPECT_GT(info.cache_bytes_per_token, 0);
  config.vocab_size *= 2;
  EXPECT_INPUT_ERROR(config.validate(), "vocab_size");
}

class Preset : public testing::TestWithParam<std::string> {};

TEST_P(Preset, HasTheSizeItsNameSays) {
  const ModelConfig config = preset(GetParam());
  EXPECT_NO_THROW(config.validate());
  EXPECT_EQ(ModelConfig::from_json(config.to_json(), "x"), config);
  EXPECT_EQ(config.vocab_size, 32000);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.conv_activation, config.recurrent() == Mixer::mamba2 ? "none" : "silu");
  EXPECT_EQ(config.intermediate_size % 16, 0);

  const std::string size = GetParam().substr(GetParam().rfind('-') + 1);
  const std::map<std::string, double> nominal{{"tiny", 1e6},   {"10m", 10e6},   {"50m", 50e6},  {"180m", 180e6},
                                              {"440m", 440e6}, {"880m", 880e6}, {"1.4b", 1.4e9}};
  const ModelInfo info = model_info(config);
  const int64_t counted = info.parameters.total - info.parameters.embedding;
  EXPECT_NEAR(static_cast<double>(counted) / nominal.at(size), 1, 0.06);
  EXPECT_EQ(counted, parameters_without_embedding(config));
  EXPECT_EQ(info.parameters.embedding, 32000 * config.hidden_size);
  EXPECT_EQ(info.parameters.shared + info.parameters.attention + info.parameters.recurrent, counted);
  EXPECT_EQ(config.max_position_embeddings, nominal.at(size) < 100e6 ? 1024 : 4096);

  // All kinds of one size within 3% of each other.
  const ModelInfo other = model_info(preset("oryx-gdn-" + size));
  EXPECT_NEAR(static_cast<double>(counted) / static_cast<double>(other.parameters.total - other.parameters.embedding),
              1, 0.0149);
}

TEST_P(Preset, SharesNineTenthsOfWhatEachModeUses) {
  const ModelConfig config = preset(GetParam());
  const ModelInfo info = model_info(config);
  EXPECT_EQ(info.tie_ratio_attention.has_value(), config.has(Mode::attention));
  EXPECT_EQ(info.tie_ratio_recurrent.has_value(), config.has(Mode::recurrent));
  EXPECT_EQ(info.flops_attention.has_value(), config.has(Mode::attention));
  EXPECT_EQ(info.flops_recurrent.has_value(), config.has(Mode::recurrent));
  for (const auto& ratio : {info.tie_ratio_attention, info.tie_ratio_recurrent}) {
    if (!ratio) continue;
    EXPECT_GE(*ratio, 0.90);
    EXPECT_LT(*ratio, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Preset, testing::ValuesIn(preset_names()), [](const auto& info) {
  std::string name = info.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(Presets, AreListedAndSuggested) {
  EXPECT_EQ(preset_names().size(), 35u);
  EXPECT_INPUT_ERROR(preset("oryx-gnd-tiny"), "did you mean 'oryx-gdn-tiny'?");
  EXPECT_INPUT_ERROR(preset(""), "no preset ''");
}

std::string listed(const ModelConfig& config) {
  std::string out;
  for (const WeightSpec& spec : weight_specs(config)) {
    out += spec.name + " [";
    for (size_t i = 0; i < spec.shape.size(); ++i) out += (i ? "," : "") + std::to_string(spec.shape[i]);
    out += "] " + std::string{"esar"[static_cast<int>(spec.use)], "nsocad"[static_cast<int>(spec.init)]} +
           (spec.decay ? "+" : "-") + "\n";
  }
  return out;
}

ModelConfig small(std::vector<Mixer> mixers, bool tied) {
  ModelConfig config;
  config.vocab_size = 11;
  config.hidden_size = 10;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 6;
  config.value_head_dim = 3;
  config.intermediate_size = 9;
  config.mixers = std::move(mixers);
  config.tie_word_embeddings = tied;
  return config;
}

// Use: e(mbedding) s(hared) a(ttention) r(ecurrent); init: n(ormal) s(caled) o(nes) c(onv) a(_log) d(t_bias); + decays.
TEST(WeightSpecs, AreThoseOfTheContract) {
  EXPECT_EQ(listed(small({Mixer::attention, Mixer::gated_deltanet}, false)),
            "model.embed_tokens.weight [11,10] en-\n"
            "lm_head.weight [11,10] en+\n"
            "model.norm.weight [10] so-\n"
            "model.layers.0.mixer_norm.weight [10] so-\n"
            "model.layers.0.mlp_norm.weight [10] so-\n"
            "model.layers.0.mixer.k_proj.weight [12,10] sn+\n"
            "model.layers.0.mixer.k_conv.weight [12,4] sc-\n"
            "model.layers.0.mixer.v_proj.weight [6,10] sn+\n"
            "model.layers.0.mixer.v_conv.weight [6,4] sc-\n"
            "model.layers.0.mixer.gate_proj.weight [12,10] sn+\n"
            "model.layers.0.mixer.o_norm.weight [3] so-\n"
            "model.layers.0.mixer.o_proj.weight [10,12] ss+\n"
            "model.layers.0.mixer.attention.q_proj.weight [24,10] an+\n"
            "model.layers.0.mixer.attention.scale [4] ao-\n"
            "model.layers.0.mixer.recurrent.q_proj.weight [24,10] rn+\n"
            "model.layers.0.mixer.recurrent.a_proj.weight [2,10] rn+\n"
            "model.layers.0.mixer.recurrent.A_log [2] ra-\n"
            "model.layers.0.mixer.recurrent.dt_bias [2] rd-\n"
            "model.layers.0.mixer.recurrent.b_proj.weight [2,10] rn+\n"
            "model.layers.0.mlp.gate_proj.weight [9,10] sn+\n"
            "model.layers.0.mlp.up_proj.weight [9,10] sn+\n"
            "model.layers.0.mlp.down_proj.weight [10,9] ss+\n");
}

TEST(WeightSpecs, DependOnTheMixers) {
  const std::string both = listed(small({Mixer::attention, Mixer::mamba2}, true));
  EXPECT_NE(both.find("recurrent.scale [4] ro-"), std::string::npos);
  EXPECT_NE(both.find("recurrent.D [4] ro-"), std::string::npos);
  EXPECT_NE(both.find("attention.scale"), std::string::npos);
  EXPECT_EQ(both.find("b_proj"), std::string::npos);
  EXPECT_EQ(both.find("lm_head"), std::string::npos);
  const std::string attention = listed(small({Mixer::attention}, true));
  EXPECT_EQ(attention.find("recurrent"), std::string::npos);
  EXPECT_NE(attention.find("k_conv"), std::string::npos);
  EXPECT_EQ(listed(small({Mixer::gated_deltanet}, true)).find("attention"), std::string::npos);
}

TEST(ModelInfo, CountsFlopsAndBytesOfASmallModel) {
  ModelConfig config = small({Mixer::attention, Mixer::gated_deltanet}, false);
  config.max_position_embeddings = 100;
  ModelInfo info = model_info(config);
  // Matrices of one layer, by hand: k 120, v 60, gate 120, o 120, q 240, a 20, b 20, convs 18 * 4, MLP 270, head 110.
  const double common = 2 * (120 + 60 + 120 + 120 + 240 + 20 + 20 + 72 + 270 + 110);
  EXPECT_DOUBLE_EQ(*info.flops_attention, common + 2 * 50 * 4 * (6 + 3));
  EXPECT_DOUBLE_EQ(*info.flops_recurrent, common + 4 * 2 * (64 * 9 + 18) + 2 * 2 * 18 + 2 * 2 * (64 * 6 + 32 * 9 + 18));
  EXPECT_EQ(info.cache_bytes_per_token, 18 * 4 + 2 * 2 * 4);
  EXPECT_EQ(info.state_bytes, 4 * (2 * 6 * 3 + 18 * 3));
  config.dtype = "bfloat16";
  EXPECT_EQ(model_info(config).cache_bytes_per_token, 18 * 2 + 2 * 2 * 4);

  const ModelInfo mamba2 = model_info(small({Mixer::mamba2}, true));
  EXPECT_DOUBLE_EQ(*mamba2.flops_recurrent, common - 2 * 20 + 4 * 2 * (64 * 9 + 18) + 2 * 2 * 18);
  EXPECT_EQ(mamba2.cache_bytes_per_token, 0);
  EXPECT_EQ(model_info(small({Mixer::attention}, true)).state_bytes, 4 * 18 * 3);
}

}  // namespace
}  // namespace oryx
