#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "base/progress.h"
#include "model/language_model.h"
#include "train/trainer.h"

namespace oryx {

namespace fs = std::filesystem;

// A folder for runs and a recipe that trains in no time: recall, 8 sequences of 32 tokens a step.
class Training : public ::testing::Test {
 protected:
  void SetUp() override {
    Progress::set_quiet(true);
    dir_ = fs::temp_directory_path() / ("oryx_trainer_" + std::to_string(::getpid()) + "_" +
                                        ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  static Json recipe_json(int64_t tokens) {
    return parse_toml(R"(
[model]
preset = "oryx-gdn-tiny"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 8
value_head_dim = 8
intermediate_size = 64
[data]
task = "recall"
pairs = 4
length = 32
vocab = 32
[mixing]
chunk = 4
[train]
batch_tokens = 256
lr = 3e-3
schedule = "constant"
log_every = 1
eval_tokens = 256
tokens = )" + std::to_string(tokens),
                      "test");
  }
  static Recipe recipe(const Json& json) { return Recipe::from_json(json, "test", "."); }

  std::vector<Json> metrics(const fs::path& run) const {
    std::vector<Json> lines;
    std::ifstream in(run / "metrics.jsonl");
    for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  fs::path dir_;
};

inline bool same_weights(const fs::path& a, const fs::path& b) {
  const LanguageModel x = LanguageModel::load(a), y = LanguageModel::load(b);
  for (size_t i = 0; i < x.weights().size(); ++i)
    if (!x.weights()[i].second.equal(y.weights()[i].second)) return false;
  return true;
}

// The names in a folder, hidden ones included.
inline std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename().string());
  return names;
}

}  // namespace oryx
