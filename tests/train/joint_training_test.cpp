#include "train/joint_training.h"

#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "training_case.h"

namespace oryx {
namespace {

// The recipe of the other tests with its data, for joint training.
class JointTraining : public Training {
 protected:
  void SetUp() override {
    Training::SetUp();
    recipe_ = recipe(recipe_json(2560));
    recipe_.train.micro_batch_tokens = 256;
    data_ = std::make_unique<TrainingData>(recipe_, dir_, false);
    model_ = std::make_unique<LanguageModel>(LanguageModel::random(recipe_.model, 1));
    mixing_ = make_mixing(recipe_.mixing, recipe_.model, recipe_.data.context);
    options_.gate.width = 16;
    options_.gate.lr = 1e-2;
  }
  Gate gate() const {
    Gate gate(recipe_.model.hidden_size, 16, 3, at::kCPU);
    for (const at::Tensor& w : gate.parameters()) w.requires_grad_(true);
    return gate;
  }
  JointLosses losses(const Gate& gate) const {
    return joint_losses(*model_, gate, data_->train().batch(0), *mixing_, options_, 0, 0);
  }

  Recipe recipe_;
  std::unique_ptr<TrainingData> data_;
  std::unique_ptr<LanguageModel> model_;
  std::unique_ptr<MixingStrategy> mixing_;
  JointTrainingOptions options_;
};

TEST_F(JointTraining, TheGatesLossReachesTheRecurrenceAlone) {
  model_->require_gradients(true);
  const Gate head = gate();
  losses(head).gate.backward();
  for (const auto& [name, weight] : model_->weights()) {
    const bool moved = weight.grad().defined() && weight.grad().abs().max().item<double>() > 0;
    // The gain is what it is: no gradient flows into what attention alone uses.
    EXPECT_EQ(moved, name.find("attention") == std::string::npos) << name;
  }
  for (const at::Tensor& w : head.parameters()) EXPECT_TRUE(w.grad().defined());
}

TEST_F(JointTraining, TheModelsLossLeavesTheGateAlone) {
  model_->require_gradients(true);
  const Gate head = gate();
  for (double placed : {0.0, 1.0}) {
    options_.placed = placed;
    losses(head).model.backward();
    for (const at::Tensor& w : head.parameters()) EXPECT_FALSE(w.grad().defined()) << placed;
  }
  EXPECT_GT(model_->weight("model.layers.0.mixer.attention.q_proj.weight").grad().abs().max().item<double>(), 0);
}

TEST_F(JointTraining, AConstantGuessOfTheMeanExplainsNothing) {
  Gate head(recipe_.model.hidden_size, 16, 3, at::kCPU);
  const double mean = losses(head).gain.mean().item<double>();
  for (const at::Tensor& w : head.parameters()) w.zero_();
  head.parameters()[3].fill_(mean);
  EXPECT_NEAR(losses(head).gate.item<double>(), 1, 0.01);  // 255 / 256: the variance is the sample's
}

TEST_F(JointTraining, LowersBothLosses) {
  options_.gate.tokens = 256 * 300;
  options_.model_lr = 1e-2;
  const Gate untrained(recipe_.model.hidden_size, 16, options_.gate.seed, at::kCPU);
  const double before = losses(untrained).gate.item<double>();
  const auto [head, report] = train_jointly(*model_, *data_, recipe_, options_);
  for (const char* mode : {"attention", "recurrent", "mixed", "tail"})
    EXPECT_LT(report.after.at(mode).get<double>(), report.before.at(mode).get<double>() - 0.3) << mode;
  EXPECT_LT(losses(head).gate.item<double>(), before - 0.1);
  EXPECT_EQ(report.gate.tokens, 256 * 300);
}

TEST_F(JointTraining, IsAFunctionOfItsSeed) {
  options_.gate.tokens = 2560;
  const auto run = [&] {
    LanguageModel model = LanguageModel::random(recipe_.model, 1);
    const Gate head = train_jointly(model, *data_, recipe_, options_).first;
    return std::pair(model.weight("model.embed_tokens.weight").clone(), head.parameters()[0].clone());
  };
  const auto a = run(), b = run();
  EXPECT_TRUE(a.first.equal(b.first));
  EXPECT_TRUE(a.second.equal(b.second));
  EXPECT_FALSE(a.first.equal(model_->weight("model.embed_tokens.weight")));
}

TEST_F(JointTraining, NeedsTwoMixers) {
  ModelConfig config = recipe_.model;
  config.mixers = {Mixer::attention};
  LanguageModel model = LanguageModel::random(config, 1);
  EXPECT_THROW(train_jointly(model, *data_, recipe_, options_), InputError);
}

}  // namespace
}  // namespace oryx
