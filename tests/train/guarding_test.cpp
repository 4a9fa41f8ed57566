#include <gtest/gtest.h>

#include <ATen/core/Tensor.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "train/checksums.h"
#include "training_case.h"

namespace oryx {
namespace {

// Multiplies the gradients of the steps that `when` picks.
TrainOptions with_gradients(const fs::path& out, double factor, std::function<bool(int64_t)> when) {
  TrainOptions options{out};
  options.before_update = [factor, when = std::move(when)](int64_t step, const LanguageModel& model) {
    if (!when(step)) return;
    for (const auto& [name, w] : model.weights())
      if (w.grad().defined()) w.mutable_grad().mul_(factor);
  };
  return options;
}

TEST_F(Training, AStepWithoutAFiniteGradientIsSkipped) {
  const Json json = recipe_json(256 * 60);
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto result =
      train(recipe(json), with_gradients(dir_ / "run", nan, [](int64_t s) { return s == 4 || s == 30; }));
  EXPECT_EQ(result.steps, 60);
  EXPECT_EQ(result.skipped, 2);
  EXPECT_LT(result.loss, std::log(32.0) - 0.3);
  std::vector<int64_t> skipped;
  int64_t counted = 0;
  for (const Json& line : metrics(dir_ / "run")) {
    if (!line.contains("skipped")) continue;
    skipped.push_back(line["step"]);
    EXPECT_EQ(line["skipped"], ++counted);
    EXPECT_FALSE(line.contains("loss"));
  }
  EXPECT_EQ(skipped, (std::vector<int64_t>{5, 31}));
  EXPECT_EQ(metrics(dir_ / "run").size(), 61u);
}

TEST_F(Training, StopsAfterManyStepsInARowAndKeepsTheLastGoodCheckpoint) {
  Json json = recipe_json(256 * 40);
  json["train"]["checkpoint_every"] = 5;
  json["train"]["nonfinite_limit"] = 4;
  const auto infinite = std::numeric_limits<double>::infinity();
  try {
    // Steps count from 0 here: the update to step 13 is the first to be skipped, step 15 would be saved.
    train(recipe(json), with_gradients(dir_ / "run", infinite, [](int64_t s) { return s >= 12; }));
    FAIL() << "no error";
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("stopped at step 16: 4 steps in a row"), std::string::npos) << e.what();
  }
  const auto checkpoint = dir_ / "run/checkpoints/step-000000010";
  EXPECT_EQ(names_in(dir_ / "run/checkpoints"), (std::set<std::string>{"step-000000008", "step-000000010"}));
  EXPECT_FALSE(find_damage(checkpoint));
  EXPECT_FALSE(fs::exists(dir_ / "run/model"));
  train(recipe(json), {dir_ / "whole"});
  EXPECT_EQ(train(recipe(json), {dir_ / "run", /*resume=*/true}).steps, 40);
  EXPECT_TRUE(same_weights(dir_ / "run/model", dir_ / "whole/model"));
}

TEST_F(Training, OutliersAreReported) {
  Json json = recipe_json(256 * 80);
  train(recipe(json), with_gradients(dir_ / "run", 1e4, [](int64_t s) { return s == 70; }));
  std::vector<int64_t> steps;
  for (const Json& line : metrics(dir_ / "run")) {
    if (!line.contains("outlier")) continue;
    steps.push_back(line["step"]);
    EXPECT_GT(line["outlier"]["grad_norm_z"].get<double>(), 6);
  }
  EXPECT_EQ(steps, std::vector<int64_t>{71});
}

}  // namespace
}  // namespace oryx
