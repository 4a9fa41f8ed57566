#include "train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "training_case.h"

namespace oryx {
namespace {

TEST_F(Training, LossFallsAndTheRunIsComplete) {
  const TrainResult result = train(recipe(recipe_json(256 * 60)), {dir_ / "run"});
  EXPECT_EQ(result.steps, 60);
  const auto lines = metrics(dir_ / "run");
  ASSERT_EQ(lines.size(), 61u);  // every step and the last evaluation
  EXPECT_NEAR(lines[0]["loss"].get<double>(), std::log(32.0), 0.3);
  EXPECT_LT(result.loss, lines[0]["loss"].get<double>() - 0.3);
  for (const char* mode : {"attention", "recurrent", "mixed", "tail"})
    EXPECT_TRUE(lines.back()["val_loss"].contains(mode)) << mode;
  EXPECT_TRUE(fs::exists(dir_ / "run/model/recall.json"));
  EXPECT_NO_THROW(LanguageModel::load(dir_ / "run/model"));
}

TEST_F(Training, ResumeIsBitExact) {
  // A budget that changes with --set would change the schedule; the first half stops through its checkpoint instead.
  Json json = recipe_json(256 * 20);
  json["train"]["checkpoint_every"] = 7;
  json["train"]["keep"] = 9;
  train(recipe(json), {dir_ / "whole"});
  const fs::path half = dir_ / "half";
  train(recipe(json), {half});
  fs::remove_all(half / "model");
  for (const auto& entry : fs::directory_iterator(half / "checkpoints"))
    if (entry.path().filename() != "step-000000014") fs::remove_all(entry.path());
  ASSERT_TRUE(fs::exists(half / "checkpoints/step-000000014"));
  const TrainResult rest = train(recipe(json), {half, /*resume=*/true});
  EXPECT_EQ(rest.steps, 20);
  EXPECT_TRUE(same_weights(dir_ / "whole/model", half / "model"));
  const auto a = metrics(dir_ / "whole"), b = metrics(half);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    for (const char* key : {"step", "loss", "lr", "grad_norm", "val_loss"}) {
      EXPECT_EQ(a[i].value(key, Json()), b[i].value(key, Json())) << key << " in line " << i;
    }
}

TEST_F(Training, MicroBatchesAddUpToTheBatch) {
  Json json = recipe_json(256 * 3);
  train(recipe(json), {dir_ / "one"});
  json["train"]["micro_batch_tokens"] = 64;
  const auto parts = train(recipe(json), {dir_ / "four"});
  EXPECT_TRUE(std::isfinite(parts.loss));
  // The sequences differ (a batch is a function of the micro step), so only the scale is compared.
  EXPECT_NEAR(metrics(dir_ / "one")[0]["loss"].get<double>(), metrics(dir_ / "four")[0]["loss"].get<double>(), 0.2);
}

TEST_F(Training, BothIsTheMeanOfTheTwoModes) {
  using Gradients = std::map<std::string, at::Tensor>;
  const auto first_step = [&](const char* strategy, bool both) {
    Json json = recipe_json(256);
    json["mixing"]["strategy"] = strategy;
    json["mixing"]["both"] = both;
    std::pair<double, Gradients> result;
    TrainOptions options{dir_ / fmt::format("{}{}", strategy, both)};
    options.before_update = [&](int64_t, const LanguageModel& model) {
      for (const auto& [name, w] : model.weights())
        result.second[name] = w.grad().defined() ? w.grad().clone() : at::zeros_like(w.detach());
    };
    const TrainResult trained = train(recipe(json), options);
    EXPECT_EQ(trained.tokens, 256);
    result.first = trained.loss;
    return result;
  };
  const auto attention = first_step("attention", false), recurrent = first_step("recurrent", false);
  const auto from_attention = first_step("attention", true), from_recurrent = first_step("recurrent", true);
  for (const auto& [loss, gradients] : {from_attention, from_recurrent}) {
    EXPECT_NEAR(loss, (attention.first + recurrent.first) / 2, 1e-6);
    for (const auto& [name, gradient] : gradients) {
      const at::Tensor mean = (attention.second.at(name) + recurrent.second.at(name)) / 2;
      EXPECT_LE((gradient - mean).abs().max().item<double>(), 1e-6) << name;
    }
  }
}

TEST_F(Training, RefusesToOverwriteAndToMixRecipes) {
  Json json = recipe_json(256 * 2);
  train(recipe(json), {dir_ / "run"});
  EXPECT_THROW(train(recipe(json), {dir_ / "run"}), InputError);
  json["train"]["lr"] = 1e-4;
  try {
    train(recipe(json), {dir_ / "run", true});
    FAIL() << "no error";
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("train.lr"), std::string::npos) << e.what();
  }
}

TEST_F(Training, FinishedRunIsLeftAlone) {
  const Json json = recipe_json(256 * 2);
  train(recipe(json), {dir_ / "run"});
  const auto before = read_text_file(dir_ / "run/metrics.jsonl");
  EXPECT_EQ(train(recipe(json), {dir_ / "run", true}).steps, 2);
  EXPECT_EQ(before, read_text_file(dir_ / "run/metrics.jsonl"));
}

TEST_F(Training, MuonTrains) {
  Json json = recipe_json(256 * 60);
  json["train"]["optimizer"] = "muon";
  json["train"]["lr"] = 1e-2;
  EXPECT_LT(train(recipe(json), {dir_ / "run"}).loss, std::log(32.0) - 0.3);
}

TEST_F(Training, SaysItsRecipeOnceBeforeItBegins) {
  int said = 0;
  TrainOptions options{dir_ / "run"};
  options.started = [&](const Json& resolved) {
    ++said;
    EXPECT_EQ(resolved["train"]["optimizer"], "adamw");
    EXPECT_FALSE(fs::exists(dir_ / "run/model"));
  };
  train(recipe(recipe_json(256 * 2)), options);
  EXPECT_EQ(said, 1);
  EXPECT_EQ(load_json(dir_ / "run/recipe.json"), recipe(recipe_json(256 * 2)).to_json());
}

TEST_F(Training, BfloatComputeTrains) {
  Json json = recipe_json(256 * 40);
  json["train"]["precision"] = "bf16";
  const auto result = train(recipe(json), {dir_ / "run"});
  EXPECT_LT(result.loss, std::log(32.0) - 0.2);
}

}  // namespace
}  // namespace oryx
