#include "train/sharded_weights.h"

#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

namespace oryx {
namespace {

class Sharded : public ::testing::Test {
 protected:
  Sharded() {
    ModelConfig config = preset("oryx-gdn-tiny");
    config.num_hidden_layers = 3, config.vocab_size = 64;
    model_ = std::make_unique<LanguageModel>(LanguageModel::random(config, 1));
    model_->require_gradients(true);
    shards_ = std::make_unique<ShardedWeights>(*model_, std::vector<bool>(model_->weights().size()), group_);
  }
  SequenceLayout layout(const char* schedule) const {
    return {{{ScheduleSpec::parse(schedule).resolve(32, model_->config())}}, 3};
  }
  at::Tensor loss(const SequenceLayout& layout) const {
    const at::Tensor tokens = at::randint(64, {32}, at::kLong);
    return model_->losses(model_->hidden(tokens, layout), tokens).sum();
  }

  ProcessGroup group_;  // of one: when reductions begin is to be seen here, not what they do
  std::unique_ptr<LanguageModel> model_;
  std::unique_ptr<ShardedWeights> shards_;
};

TEST_F(Sharded, ReductionsBeginInTheBackwardPass) {
  ASSERT_GT(shards_->buckets(), 8u);
  for (const char* schedule : {"alternate:4", "attention", "recurrent"}) {
    const SequenceLayout whole = layout("alternate:4"), last = layout(schedule);
    shards_->begin_step();
    loss(whole).backward();
    EXPECT_EQ(shards_->reductions_begun(), 0u);  // more micro batches are to come
    const at::Tensor x = loss(last);
    shards_->reduce_in_backward(last);
    EXPECT_LT(shards_->reductions_begun(), shards_->buckets() / 2);
    x.backward();
    EXPECT_EQ(shards_->reductions_begun(), shards_->buckets()) << schedule;
    std::vector<double> values{3};
    shards_->finish_reduction(values);
    EXPECT_EQ(values[0], 3);
    for (size_t i = 0; i < model_->weights().size(); ++i) EXPECT_TRUE(shards_->has_gradient(i));
  }
}

TEST_F(Sharded, KnowsWhichWeightsHaveNoGradient) {
  const SequenceLayout attention = layout("attention");
  shards_->begin_step();
  const at::Tensor x = loss(attention);
  shards_->reduce_in_backward(attention);
  x.backward();
  std::vector<double> values;
  shards_->finish_reduction(values);
  const auto specs = weight_specs(model_->config());
  for (size_t i = 0; i < specs.size(); ++i)
    EXPECT_EQ(shards_->has_gradient(i), specs[i].use != WeightSpec::Use::recurrent) << specs[i].name;
}

}  // namespace
}  // namespace oryx
