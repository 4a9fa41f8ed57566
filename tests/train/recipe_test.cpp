#include "train/recipe.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace oryx {
namespace {

constexpr const char* kRecall = R"(
[model]
preset = "oryx-gdn-tiny"
[data]
task = "recall"
pairs = 8
length = 64
vocab = 64
[mixing]
chunk = 8
[train]
tokens = 10_000
batch_tokens = 256
)";

Recipe read(const std::string& text) {
  return Recipe::from_json(parse_toml(text, "r.toml"), "r.toml", "/base");
}

std::string error_of(const std::string& text) {
  try {
    read(text);
  } catch (const InputError& e) {
    return e.what();
  }
  return "";
}

std::string with(const std::string& what, const std::string& by) {
  std::string text = kRecall;
  const auto at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), by);
}

void expect_error(const std::string& text, const std::string& words) {
  const std::string message = error_of(text);
  EXPECT_NE(message.find(words), std::string::npos) << "message: " << message << "\nexpected: " << words;
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(Recipe, FillsInDefaults) {
  const Recipe r = read(kRecall);
  EXPECT_EQ(r.model.vocab_size, 64);
  EXPECT_EQ(r.data.context, 64);
  EXPECT_EQ(r.train.micro_batch_tokens, 256);
  EXPECT_EQ(r.train.precision, "fp32");
  EXPECT_EQ(r.steps(), 40);
  EXPECT_EQ(r.mixing.strategy, "random");
  EXPECT_EQ(r.to_json()["train"]["beta2"], 0.95);
}

TEST(Recipe, ModelKeysLieOverThePreset) {
  const Recipe r = read(with("preset = \"oryx-gdn-tiny\"", "preset = \"oryx-gdn-tiny\"\nnum_hidden_layers = 1"));
  EXPECT_EQ(r.model.num_hidden_layers, 1);
  EXPECT_EQ(r.model.hidden_size, preset("oryx-gdn-tiny").hidden_size);
}

TEST(Recipe, PathsAreRelativeToTheRecipe) {
  const Recipe r = read(R"(
[model]
preset = "oryx-gdn-tiny"
[data]
text = ["../books/a.txt", "/abs/b.txt"]
context = 128
[train]
tokens = 1000
batch_tokens = 128
)");
  EXPECT_EQ(r.data.text, (std::vector<std::string>{"/books/a.txt", "/abs/b.txt"}));
}

TEST(Recipe, Errors) {
  expect_error(with("chunk = 8", "chunc = 8"), "did you mean 'chunk'");
  expect_error(with("batch_tokens = 256", ""), "batch_tokens");
  expect_error(with("batch_tokens = 256", "batch_tokens = 250"), "multiple of the context 64");
  expect_error(with("batch_tokens = 256", "batch_tokens = 256\nmicro_batch_tokens = 192"),
               "multiple of micro_batch_tokens 192");
  expect_error(with("tokens = 10_000", "tokens = -5"), "'tokens' must be an integer from 0");
  expect_error(with("tokens = 10_000", "tokens = 0"), "'tokens' must be at least 1");
  expect_error(with("tokens = 10_000", "tokens = 10_000\nlr = \"fast\""), "lr");
  expect_error(with("tokens = 10_000", "tokens = 10_000\nprecision = \"fp8\""), "precision");
  expect_error(with("tokens = 10_000", "tokens = 10_000\nschedule = \"cosin\""), "did you mean 'cosine'");
  expect_error(with("tokens = 10_000", "tokens = 10_000\noptimizer = \"moun\""), "did you mean 'muon'");
  expect_error(with("tokens = 10_000", "tokens = 10_000\noptimiser = \"muon\""), "did you mean 'optimizer'");
  expect_error(with("tokens = 10_000", "tokens = 10_000\nmomentum = 1"), "momentum");
  expect_error(with("preset = \"oryx-gdn-tiny\"", "preset = \"oryx-gdn-tny\""), "did you mean 'oryx-gdn-tiny'");
  expect_error(with("task = \"recall\"", "task = \"recal\""), "did you mean 'recall'");
  expect_error(with("[mixing]", "[mixin]"), "did you mean 'mixing'");
  expect_error("[data]\ntask = \"recall\"\n", "[model] is missing");
  expect_error("[model\n", "r.toml");
  expect_error(with("chunk = 8", "strategy = \"mixture\""), "weights");
}

constexpr const char* kMixture = R"(
[model]
preset = "oryx-gdn-tiny"
[data]
tokenizer = "t/tokenizer.json"
context = 128
[[data.sources]]
shards = ["a", "b"]
weight = 0.7
[[data.sources]]
text = ["c.txt"]
weight = 0.2
[[data.sources]]
task = "recall"
pairs = 8
length = 64
vocab = 64
[train]
tokens = 1000
batch_tokens = 256
)";

TEST(Recipe, Mixtures) {
  const Recipe r = read(kMixture);
  ASSERT_EQ(r.data.sources.size(), 3u);
  EXPECT_EQ(r.data.sources[0].shards, (std::vector<std::string>{"/base/a", "/base/b"}));
  EXPECT_EQ(r.data.sources[0].weight, 0.7);
  EXPECT_EQ(r.data.sources[2].recall->pairs, 8);
  EXPECT_EQ(r.data.sources[2].weight, 1);
  EXPECT_EQ(r.data.tokenizer, "/base/t/tokenizer.json");
  EXPECT_EQ(r.to_json()["data"]["sources"][1]["weight"], 0.2);
  const auto changed = [](const std::string& what, const std::string& by) {
    std::string text = kMixture;
    return text.replace(text.find(what), what.size(), by);
  };
  expect_error(changed("weight = 0.7", "wieght = 0.7"),
               "[data] sources 1: unknown key 'wieght'; did you mean 'weight'?");
  expect_error(changed("weight = 0.7", "weight = 0"), "'weight' must be above 0");
  expect_error(changed("text = [\"c.txt\"]", ""), "sources 2: give one of task");
  const Recipe book =
      read(changed("task = \"recall\"\npairs = 8\nlength = 64\nvocab = 64", "task = \"phone_book\"\nqueries = 2"));
  EXPECT_EQ(book.data.sources[2].synthetic->queries, 2);
  EXPECT_EQ(book.to_json()["data"]["sources"][2]["task"], "phone_book");
  EXPECT_FALSE(book.to_json()["data"]["sources"][2].contains("length"));
  const std::string recall = "task = \"recall\"\npairs = 8\nlength = 64\nvocab = 64";
  EXPECT_EQ(read(changed(recall, "task = \"needle\"\nlength = 64")).to_json()["data"]["sources"][2]["length"], 64);
  expect_error(changed(recall, "task = \"needle\"\nlength = 96"), "multiple of the task's length 96");
  expect_error(changed("task = \"recall\"", "task = \"needle\""), "unknown key 'pairs'");
  expect_error(changed("length = 64", "length = 96"), "multiple of the task's length 96");
  expect_error(changed("task = \"recall\"", "task = \"recal\""), "did you mean 'recall'");
  expect_error(changed("context = 128", "context = 128\ntext = [\"d\"]"), "'text' belongs into one of the");
  expect_error(changed("context = 128", "contxt = 128"), "did you mean 'context'");
}

TEST(Recipe, StrategyMustSuitTheModel) {
  std::string text = with("preset = \"oryx-gdn-tiny\"", "preset = \"transformer-tiny\"");
  text.replace(text.find("chunk = 8"), 9, "strategy = \"recurrent\"");
  expect_error(text, "the model has no recurrent mixer");
}

TEST(Recipe, OverridesReachTheTables) {
  Json json = parse_toml(kRecall, "r.toml");
  apply_override(json, "train.lr=3e-4");
  apply_override(json, "mixing.strategy=\"tail\"");
  const Recipe r = Recipe::from_json(json, "r.toml", ".");
  EXPECT_DOUBLE_EQ(r.train.lr, 3e-4);
  EXPECT_EQ(r.mixing.strategy, "tail");
}

TEST(Recipe, PrintedAsTomlItReadsBackTheSame) {
  for (const std::string& text :
       {std::string(kRecall), with("chunk = 8", "strategy = \"mixture\"\n[mixing.weights]\ntail = 0.25\nrandom = 1")}) {
    const Json resolved = read(text).to_json();
    EXPECT_EQ(resolved["model"]["query_activation"], "silu");
    EXPECT_EQ(read(to_toml(resolved)).to_json(), resolved) << to_toml(resolved);
  }
}

TEST(Recipe, ResolvedHasEveryKeyOfTraining) {
  const Json train = read(kRecall).to_json()["train"];
  EXPECT_EQ(train["optimizer"], "adamw");
  EXPECT_EQ(train["momentum"], 0.95);
  EXPECT_EQ(train["nonfinite_limit"], 10);
  EXPECT_EQ(read(with("tokens = 10_000", "tokens = 10_000\noptimizer = \"muon\"\nmomentum = 0.5")).train.momentum, 0.5);
}

TEST(LearningRate, Schedules) {
  Recipe::Train t;
  t.lr = 1, t.min_lr = 0.1, t.warmup = 10;
  EXPECT_DOUBLE_EQ(learning_rate(t, 0, 110), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(t, 9, 110), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(t, 10, 110), 1.0);
  EXPECT_NEAR(learning_rate(t, 60, 110), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(t, 110, 110), 0.1, 1e-12);
  t.schedule = "linear";
  EXPECT_NEAR(learning_rate(t, 35, 110), 1 - 0.9 * 0.25, 1e-12);
  t.schedule = "constant";
  EXPECT_DOUBLE_EQ(learning_rate(t, 109, 110), 1.0);
  t.schedule = "wsd", t.decay = 0.5;
  EXPECT_DOUBLE_EQ(learning_rate(t, 54, 110), 1.0);
  EXPECT_NEAR(learning_rate(t, 82, 110), 1 - 0.9 * 27.0 / 55, 1e-12);
}

}  // namespace
}  // namespace oryx
