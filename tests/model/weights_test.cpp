// Weights: initialisation, and model directories written, read, and refused.

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/softplus.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/files.h"
#include "base/safetensors.h"
#include "expect_error.h"
#include "model/random_case.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

ModelConfig config_of(std::vector<Mixer> mixers, int64_t hidden = 8) {
  ModelConfig c;
  c.mixers = std::move(mixers);
  c.vocab_size = 11;
  c.hidden_size = hidden;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = hidden / 2;
  c.value_head_dim = hidden / 4;
  c.intermediate_size = 2 * hidden;
  return c;
}
const std::vector<Mixer> kDelta{Mixer::attention, Mixer::gated_deltanet}, kMamba{Mixer::attention, Mixer::mamba2};

// The same names in the same order and the same bits, `rounded` to bfloat16 first when asked.
void expect_same_weights(const LanguageModel& a, const LanguageModel& b, bool rounded = false) {
  ASSERT_EQ(a.weights().size(), b.weights().size());
  for (size_t i = 0; i < a.weights().size(); ++i) {
    const auto& [name, w] = b.weights()[i];
    EXPECT_EQ(a.weights()[i].first, name);
    EXPECT_EQ(a.weights()[i].second.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(a.weights()[i].second, rounded ? w.to(at::kBFloat16).to(at::kFloat) : w)) << name;
  }
}

TEST(Weights, AreAsManyAsModelInfoSays) {
  for_each_case(60, [](uint64_t seed) {
    Random random{seed, 40};
    const ModelConfig config = random_config(random);
    const LanguageModel model = LanguageModel::random(config, seed);
    const auto specs = weight_specs(config);
    ASSERT_EQ(specs.size(), model.weights().size());
    int64_t total = 0, embedding = 0;
    for (size_t i = 0; i < specs.size(); ++i) {
      EXPECT_EQ(specs[i].name, model.weights()[i].first);
      EXPECT_EQ(specs[i].shape, model.weights()[i].second.sizes()) << specs[i].name;
      total += model.weights()[i].second.numel();
      if (specs[i].use == WeightSpec::Use::embedding) embedding += model.weights()[i].second.numel();
    }
    const auto info = model_info(config).parameters;
    EXPECT_EQ(info.total, total);
    EXPECT_EQ(info.embedding, embedding);
    EXPECT_EQ(info.shared + info.attention + info.recurrent, total - embedding);
  });
}

TEST(Initialisation, HasTheStatedDistributions) {
  for (const auto& mixers : {kDelta, kMamba}) {
    ModelConfig config = config_of(mixers, 128);
    config.vocab_size = 500;
    config.num_attention_heads = config.num_key_value_heads = 256;
    config.head_dim = 4, config.value_head_dim = 2;
    const LanguageModel model = LanguageModel::random(config, 17);
    for (const WeightSpec& spec : weight_specs(config)) {
      const at::Tensor w = model.weight(spec.name).to(at::kDouble);
      const auto mean = w.mean().item<double>(), low = w.min().item<double>(), high = w.max().item<double>();
      const auto n = static_cast<double>(w.numel());
      switch (spec.init) {
        case WeightSpec::Init::normal:
        case WeightSpec::Init::normal_scaled: {
          // 0.02, of the residual's writers / sqrt(2 L) with L = 2; the bounds are 5 standard errors.
          const double sigma = spec.init == WeightSpec::Init::normal ? 0.02 : 0.02 / 2;
          EXPECT_NEAR(w.pow(2).mean().sqrt().item<double>(), sigma, 5 * sigma / std::sqrt(2 * n)) << spec.name;
          EXPECT_NEAR(mean, 0, 5 * sigma / std::sqrt(n)) << spec.name;
          EXPECT_GT(high, 2 * sigma) << spec.name;
          const bool writer = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
          EXPECT_EQ(spec.init == WeightSpec::Init::normal_scaled, writer) << spec.name;
          break;
        }
        case WeightSpec::Init::ones:
          EXPECT_TRUE(low == 1 && high == 1) << spec.name;
          break;
        case WeightSpec::Init::conv:  // U(-1/2, 1/2) for width 4
          EXPECT_TRUE(low >= -0.5 && low < -0.49 && high <= 0.5 && high > 0.49) << spec.name << low << high;
          EXPECT_NEAR(mean, 0, 5 * 0.2887 / std::sqrt(n)) << spec.name;
          break;
        case WeightSpec::Init::a_log: {
          const at::Tensor a = w.exp();  // U(1, 16)
          EXPECT_TRUE(a.min().item<double>() >= 1 && a.max().item<double>() <= 16.0001) << spec.name;
          EXPECT_NEAR(a.mean().item<double>(), 8.5, 5 * 4.33 / std::sqrt(n)) << spec.name;
          break;
        }
        case WeightSpec::Init::dt_bias: {
          const at::Tensor dt = at::softplus(w, 1, 40);  // log-uniform in [0.001, 0.1]
          EXPECT_TRUE(dt.min().item<double>() >= 0.000999 && dt.max().item<double>() <= 0.1001) << spec.name;
          EXPECT_NEAR(dt.log().mean().item<double>(), std::log(0.01), 5 * 1.3294 / std::sqrt(n)) << spec.name;
          break;
        }
      }
    }
  }
}

TEST(Initialisation, DependsOnSeedNameAndShapeAlone) {
  const LanguageModel model = LanguageModel::random(config_of(kDelta), 5),
                      again = LanguageModel::random(config_of(kDelta), 5);
  expect_same_weights(model, again);
  const LanguageModel other = LanguageModel::random(config_of(kDelta), 6);
  const auto specs = weight_specs(config_of(kDelta));
  for (const WeightSpec& spec : specs)
    EXPECT_EQ(at::equal(model.weight(spec.name), other.weight(spec.name)), spec.init == WeightSpec::Init::ones)
        << spec.name;
  // Two weights of one shape are not the same draw.
  EXPECT_FALSE(at::equal(model.weight("model.layers.0.mixer.k_proj.weight"),
                         model.weight("model.layers.1.mixer.k_proj.weight")));
  EXPECT_FALSE(at::equal(model.weight("model.layers.0.mlp.up_proj.weight"),
                         model.weight("model.layers.0.mlp.gate_proj.weight")));
}

TEST(Initialisation, VariantsOfOneSeedShareWhatTheyHaveInCommon) {
  const LanguageModel model = LanguageModel::random(config_of(kDelta), 5);
  for (const std::vector<Mixer>& mixers :
       {std::vector{Mixer::attention}, {Mixer::gated_deltanet}, {Mixer::mamba2}, kMamba}) {
    const LanguageModel variant = LanguageModel::random(config_of(mixers), 5);
    size_t common = 0;
    for (const auto& [name, w] : variant.weights())
      for (const auto& [ours, v] : model.weights())
        if (ours == name) {
          ++common;
          EXPECT_TRUE(at::equal(v, w)) << name;
        }
    EXPECT_GE(common, 26u);  // embedding, final norm, twelve shared weights a layer
  }
}

TEST(Directories, RoundTripTheSameBits) {
  for_each_case(20, [](uint64_t seed) {
    Random random{seed, 41};
    ModelConfig config = random_config(random);
    const bool half = random.below(2), full = random.below(2);
    config.dtype = half ? "bfloat16" : "float32";
    const LanguageModel model = LanguageModel::random(config, seed);
    const auto shard_bytes = int64_t{1} << (4 + random.below(16));
    SCOPED_TRACE(describe(config, {}) + "\nshard_bytes " + std::to_string(shard_bytes));
    const TemporaryDirectory single, sharded;
    model.save(single.path(), int64_t{4} << 30, full);
    model.save(sharded.path(), shard_bytes, full);
    EXPECT_TRUE(fs::exists(single / "model.safetensors"));
    const LanguageModel loaded = LanguageModel::load(single.path());
    EXPECT_EQ(loaded.config(), config);
    expect_same_weights(loaded, model, half && !full);
    expect_same_weights(LanguageModel::load(sharded.path()), loaded);
  });
}

TEST(Directories, ShardsKeepTheirSize) {
  const LanguageModel model = LanguageModel::random(config_of(kDelta), 1);
  const TemporaryDirectory directory;
  model.save(directory.path(), 2000);
  EXPECT_FALSE(fs::exists(directory / "model.safetensors"));
  const Json index = load_json(directory / "model.safetensors.index.json");
  EXPECT_EQ(index["weight_map"].size(), model.weights().size());
  int64_t files = 0, total = 0;
  for (const auto& entry : fs::directory_iterator(directory.path())) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    const SafetensorsReader reader(entry.path());
    int64_t bytes = 0;
    for (const auto& [name, tensor] : reader.tensors()) {
      bytes += static_cast<int64_t>(tensor.data.size());
      EXPECT_EQ(index["weight_map"][name], entry.path().filename().string());
    }
    EXPECT_TRUE(bytes <= 2000 || reader.tensors().size() == 1) << entry.path();
    total += bytes;
  }
  EXPECT_GT(files, 3);
  EXPECT_EQ(index["metadata"]["total_size"], total);
  EXPECT_EQ(total, 4 * model_info(model.config()).parameters.total);
}

// Saving one way over a directory that was saved the other way must not leave the old weights in charge.
TEST(Directories, SavingAgainReplacesWhatIsThere) {
  const TemporaryDirectory directory;
  const LanguageModel first = LanguageModel::random(config_of(kDelta), 1),
                      second = LanguageModel::random(config_of(kDelta), 2);
  first.save(directory.path(), 2000);
  second.save(directory.path());
  expect_same_weights(LanguageModel::load(directory.path()), second);
  first.save(directory.path(), 2000);
  expect_same_weights(LanguageModel::load(directory.path()), first);
}

// A saved model whose tensors a test changes before writing them back.
class Damage : public ::testing::Test {
 protected:
  struct Stored {
    Dtype dtype = Dtype::f32;
    std::vector<int64_t> shape;
    std::vector<std::byte> data;
  };
  void SetUp() override {
    LanguageModel::random(config_of(kDelta), 1).save(directory_.path());
    const SafetensorsReader reader(file_);
    for (const auto& [name, t] : reader.tensors()) tensors_[name] = {t.dtype, t.shape, {t.data.begin(), t.data.end()}};
  }
  std::string load_error() {
    std::vector<std::pair<std::string, StoredTensor>> out;
    for (const auto& [name, t] : tensors_) out.emplace_back(name, StoredTensor{t.dtype, t.shape, t.data});
    write_safetensors(file_, out);
    return input_error_of([&] { LanguageModel::load(directory_.path()); });
  }
  static void expect_parts(const std::string& message, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
  }

  const std::string name_ = "model.layers.1.mixer.recurrent.q_proj.weight";
  TemporaryDirectory directory_;
  fs::path file_ = directory_ / "model.safetensors";
  std::map<std::string, Stored> tensors_;
};

TEST_F(Damage, WrongShape) {
  auto& shape = tensors_.at(name_).shape;
  std::swap(shape[0], shape[1]);
  expect_parts(load_error(), {name_, "[8, 16]", "[16, 8]"});
  shape = {128};
  expect_parts(load_error(), {name_, "[128]", "[16, 8]"});
}

TEST_F(Damage, WrongDtype) {
  tensors_.at(name_).dtype = Dtype::i32;
  expect_parts(load_error(), {name_, "I32"});
}

TEST_F(Damage, NotFinite) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto& data = tensors_.at(name_).data;
    std::memcpy(data.data() + 4 * 77, &value, sizeof value);
    expect_parts(load_error(), {name_, "NaN"});
  }
}

TEST_F(Damage, DoubleThatPassesFloat) {
  auto& tensor = tensors_.at("model.norm.weight");
  const std::vector<double> values(8, 1e300);
  tensor.dtype = Dtype::f64;
  tensor.data.resize(64);
  std::memcpy(tensor.data.data(), values.data(), 64);
  expect_parts(load_error(), {"model.norm.weight"});
}

TEST_F(Damage, Missing) {
  tensors_.erase(name_);
  expect_parts(load_error(), {name_});
}

TEST_F(Damage, Unknown) {
  tensors_["model.layers.1.mixer.recurent.q_proj.weight"] = tensors_.at(name_);
  expect_parts(load_error(), {"model.layers.1.mixer.recurent.q_proj.weight", "did you mean", name_});
}

TEST_F(Damage, TruncatedAnywhere) {
  const std::string content = read_text_file(file_);
  for (const size_t size : {size_t{0}, size_t{5}, size_t{8}, size_t{100}, content.size() / 2, content.size() - 1}) {
    write_file_atomically(file_, std::string_view(content).substr(0, size));
    expect_parts(input_error_of([&] { LanguageModel::load(directory_.path()); }), {file_.string()});
  }
  write_file_atomically(file_, content + "x");
  expect_parts(input_error_of([&] { LanguageModel::load(directory_.path()); }), {file_.string()});
}

// Flipped bytes of the header are an InputError or a model, never anything else.
TEST_F(Damage, GarbledHeader) {
  const std::string content = read_text_file(file_);
  const size_t header = content.find("}}") + 2;
  int refused = 0;
  for (int i = 0; i < 120; ++i) {
    Random random{static_cast<uint64_t>(i), 42};
    std::string garbled = content;
    garbled[random.below(header)] = static_cast<char>(random.below(256));
    write_file_atomically(file_, garbled);
    try {
      LanguageModel::load(directory_.path());
    } catch (const InputError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 80);
}

TEST_F(Damage, NoWeightsNoConfig) {
  fs::remove(file_);
  expect_parts(input_error_of([&] { LanguageModel::load(directory_.path()); }), {"model.safetensors"});
  fs::remove(directory_ / "config.json");
  expect_parts(input_error_of([&] { LanguageModel::load(directory_.path()); }), {"config.json"});
  expect_parts(input_error_of([&] { LanguageModel::load(directory_ / "nowhere"); }), {"nowhere"});
}

TEST(Shards, BadIndexesAreRefused) {
  const TemporaryDirectory directory;
  LanguageModel::random(config_of(kDelta), 1).save(directory.path(), 3000);
  const fs::path path = directory / "model.safetensors.index.json";
  const Json index = load_json(path);
  const auto error = [&](const Json& changed) {
    write_file_atomically(path, changed.dump());
    return input_error_of([&] { LanguageModel::load(directory.path()); });
  };
  const std::string first = "model.embed_tokens.weight";
  Json changed = index;
  changed["weight_map"][first] = "model-00099.safetensors";
  EXPECT_NE(error(changed).find("model-00099.safetensors"), std::string::npos);
  changed["weight_map"][first] = "../elsewhere.safetensors";
  EXPECT_NE(error(changed).find("../elsewhere.safetensors"), std::string::npos);
  changed["weight_map"][first] = "/etc/passwd";
  EXPECT_NE(error(changed).find("/etc/passwd"), std::string::npos);
  changed["weight_map"][first] = 3;
  EXPECT_NE(error(changed).find(first), std::string::npos);
  EXPECT_NE(error(Json::object()).find("weight_map"), std::string::npos);
  EXPECT_NE(error(Json::array()).find("weight_map"), std::string::npos);

  // A shard that is gone, and a tensor that stands in two.
  write_file_atomically(path, index.dump());
  const auto shard = directory / index["weight_map"][first].get<std::string>();
  const auto extra = directory / "model-extra.safetensors";
  fs::copy_file(shard, extra);
  changed = index;
  changed["weight_map"][first] = "model-extra.safetensors";
  EXPECT_NE(error(changed).find("two shards"), std::string::npos);
  write_file_atomically(path, index.dump());
  fs::remove(shard);
  EXPECT_NE(input_error_of([&] { LanguageModel::load(directory.path()); }).find(shard.filename().string()),
            std::string::npos);
}

TEST(Weights, SetWeightChecksItsShape) {
  LanguageModel model = LanguageModel::random(config_of(kDelta), 1);
  EXPECT_INPUT_ERROR(model.set_weight("model.norm.weight", at::empty({9})), "model.norm.weight");
  EXPECT_INPUT_ERROR(model.set_weight("model.norm.bias", at::empty({8})), "model.norm.bias");
}

}  // namespace
}  // namespace oryx
