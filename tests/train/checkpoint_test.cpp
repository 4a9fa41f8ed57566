#include "train/checkpoint.h"

#include <gtest/gtest.h>

#include <future>

#include "base/error.h"
#include "base/files.h"
#include "expect_error.h"
#include "train/checksums.h"
#include "training_case.h"

namespace oryx {
namespace {

class Checkpoints : public Training {
 protected:
  void SetUp() override {
    Training::SetUp();
    const Recipe r = recipe(recipe_json(256));
    model_ = std::make_unique<LanguageModel>(LanguageModel::random(r.model, 1));
    optimizer_ = std::make_unique<Optimizer>(*model_, OptimizerOptions{});
    state_.recipe = r.to_json();
  }
  void save(CheckpointWriter& writer, int64_t step) {
    state_.step = step;
    state_.guard = Json::object();
    writer.save(*model_, *optimizer_, state_, nullptr);
  }
  std::optional<TrainerState> load() { return load_newest_checkpoint(dir_, state_.recipe, *model_, *optimizer_); }
  at::Tensor& embedding() { return const_cast<at::Tensor&>(model_->weights()[0].second); }
  fs::path checkpoint(int64_t step) const { return dir_ / fmt::format("checkpoints/step-{:09}", step); }

  std::unique_ptr<LanguageModel> model_;
  std::unique_ptr<Optimizer> optimizer_;
  TrainerState state_;
};

TEST_F(Checkpoints, TheNewestAndTheBestStay) {
  CheckpointWriter writer(dir_, 2);
  for (int64_t step = 1; step <= 6; ++step) {
    if (step == 2) state_.best_loss = 1.25, state_.best_step = 2;
    save(writer, step);
  }
  writer.wait();
  EXPECT_EQ(names_in(dir_ / "checkpoints"),
            (std::set<std::string>{"best", "step-000000002", "step-000000005", "step-000000006"}));
  EXPECT_EQ(fs::read_symlink(dir_ / "checkpoints/best"), "step-000000002");
  EXPECT_NO_THROW(LanguageModel::load(dir_ / "checkpoints/best"));
  const auto state = load();
  ASSERT_TRUE(state);
  EXPECT_EQ(state->step, 6);
  EXPECT_EQ(state->best_loss, 1.25);
  EXPECT_EQ(state->best_step, 2);
}

TEST_F(Checkpoints, OfAnOlderProgramLackKeysThatHaveTheirDefaults) {
  const Json now = state_.recipe;
  state_.recipe["mixing"].erase("key_gradient");
  state_.recipe["model"].erase("query_activation");
  CheckpointWriter writer(dir_, 2);
  save(writer, 1);
  writer.wait();
  EXPECT_TRUE(load_newest_checkpoint(dir_, now, *model_, *optimizer_));
  Json other = now;
  other["mixing"]["key_gradient"] = 0.5;
  EXPECT_INPUT_ERROR(load_newest_checkpoint(dir_, other, *model_, *optimizer_), "mixing.key_gradient = 1.0");
}

TEST_F(Checkpoints, AreWrittenBesideTraining) {
  CheckpointWriter writer(dir_, 2);
  std::promise<void> go_on;
  state_.step = 7;
  embedding().fill_(1);
  writer.save(*model_, *optimizer_, state_, [&, gate = go_on.get_future().share()](const fs::path& directory) {
    gate.wait();
    write_file_atomically(directory / "more.txt", "more");
  });
  // The writer stands still; training would go on.
  EXPECT_NO_THROW(writer.check());
  EXPECT_FALSE(newest_checkpoint(dir_));
  embedding().fill_(2);
  go_on.set_value();
  writer.wait();
  embedding().fill_(3);
  ASSERT_TRUE(load());
  EXPECT_EQ(embedding().min().item<double>(), 1);
  EXPECT_EQ(embedding().max().item<double>(), 1);
  EXPECT_EQ(read_text_file(checkpoint(7) / "more.txt"), "more");
}

TEST_F(Checkpoints, AFailedWriteIsReportedAndLeavesTheLastOne) {
  CheckpointWriter writer(dir_, 1);
  save(writer, 1);
  state_.step = 2;
  writer.save(*model_, *optimizer_, state_, [](const fs::path&) { throw InputError("no space left on device"); });
  try {
    writer.wait();
    FAIL() << "no error";
  } catch (const InputError& e) {
    EXPECT_STREQ(e.what(), "no space left on device");
  }
  EXPECT_NO_THROW(writer.check());  // said once
  EXPECT_EQ(names_in(dir_ / "checkpoints"), std::set<std::string>{"step-000000001"});
  EXPECT_EQ(load()->step, 1);
}

TEST_F(Checkpoints, TheNewestWholeOneIsTaken) {
  CheckpointWriter writer(dir_, 4);
  for (int64_t step = 1; step <= 4; ++step) {
    embedding().fill_(static_cast<double>(step));
    save(writer, step);
  }
  writer.wait();
  // One bit of the newest, half of a file of the one before, the last without its list.
  const fs::path weights = checkpoint(4) / "model.safetensors";
  std::string bytes = read_text_file(weights);
  bytes[bytes.size() - 3] ^= 1;
  write_file_atomically(weights, bytes);
  fs::resize_file(checkpoint(3) / "optimizer.safetensors", fs::file_size(checkpoint(3) / "optimizer.safetensors") / 2);
  fs::remove(checkpoint(2) / "checksums.json");
  EXPECT_EQ(load()->step, 1);
  EXPECT_EQ(embedding().max().item<double>(), 1);
  EXPECT_EQ(names_in(dir_ / "checkpoints"),
            (std::set<std::string>{"step-000000001", "damaged-step-000000002", "damaged-step-000000003",
                                   "damaged-step-000000004"}));
}

TEST_F(Checkpoints, NoneWholeIsAnError) {
  EXPECT_FALSE(load());
  CheckpointWriter writer(dir_, 4);
  save(writer, 1);
  save(writer, 2);
  writer.wait();
  for (int64_t step : {1, 2}) fs::remove(checkpoint(step) / "trainer.json");
  const auto before = names_in(dir_ / "checkpoints");
  for (int again = 0; again < 2; ++again) {
    try {
      load();
      FAIL() << "no error";
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find("no checkpoint of"), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("trainer.json"), std::string::npos) << e.what();
    }
    EXPECT_EQ(names_in(dir_ / "checkpoints"), before);
  }
}

TEST_F(Checkpoints, WhatAKilledProcessBeganIsRemoved) {
  CheckpointWriter writer(dir_, 2);
  save(writer, 1);
  writer.wait();
  fs::create_directories(dir_ / "checkpoints/.step-000000002.tmp-999999-0/x");
  fs::create_directories(dir_ / ".model.tmp-999999-0");
  fs::create_directories(dir_ / ".model.tmp-999999-0-old");
  write_file_atomically(dir_ / ".recipe.json.tmp-999999-1", "{");
  remove_unfinished(dir_);
  EXPECT_EQ(names_in(dir_ / "checkpoints"), std::set<std::string>{"step-000000001"});
  EXPECT_EQ(names_in(dir_), (std::set<std::string>{"checkpoints", ".model.tmp-999999-0-old"}));
}

TEST_F(Training, ResumesFromTheCheckpointBeforeADamagedOne) {
  Json json = recipe_json(256 * 20);
  json["train"]["checkpoint_every"] = 5;
  json["train"]["keep"] = 3;
  train(recipe(json), {dir_ / "whole"});
  fs::copy(dir_ / "whole", dir_ / "again", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove_all(dir_ / "again/model");
  for (const char* name : {"step-000000020", "step-000000018"})
    fs::resize_file(dir_ / "again/checkpoints" / name / "model.safetensors", 100);
  EXPECT_EQ(train(recipe(json), {dir_ / "again", /*resume=*/true}).steps, 20);
  EXPECT_TRUE(same_weights(dir_ / "whole/model", dir_ / "again/model"));
}

}  // namespace
}  // namespace oryx
