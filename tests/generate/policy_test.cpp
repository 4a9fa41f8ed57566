#include "generate/policy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "generate/engine.h"
#include "generate/gate.h"
#include "generate/repeats.h"
#include "generate/small_model.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

// The tokens that a policy for one token at a time puts in attention.
std::vector<int64_t> attended(const MixerSchedule& schedule) {
  std::vector<int64_t> out;
  for (int64_t t = 0; t < schedule.length(); ++t)
    if (schedule.at(t, 0) == Mode::attention) out.push_back(t);
  return out;
}

class PolicyTest : public testing::Test {
 protected:
  PolicyTest() { Gate(32, 4, 1, at::kCPU).save(directory_.path()); }
  std::unique_ptr<Policy> make(const std::string& text) const { return make_policy(text, directory_.path(), model_); }
  MixerSchedule route(const std::string& text, const RoutingRequest& request) const {
    return make(text)->route(model_, {request})[0];
  }
  at::Tensor logits(const std::vector<int64_t>& ids, Mode mode) const {
    c10::NoGradGuard no_grad;
    const SequenceLayout layout({{MixerSchedule::uniform(mode, static_cast<int64_t>(ids.size()))}}, 2);
    return model_.logits(model_.hidden(at::tensor(ids, at::kLong), layout)).contiguous();
  }
  // Of each token, from probabilities worked out by a plain loop.
  template <typename Score>
  std::vector<double> scores(const std::vector<int64_t>& ids, Mode mode, const Score& score) const {
    const at::Tensor all = logits(ids, mode);
    std::vector<double> out;
    for (size_t t = 0; t < ids.size(); ++t) {
      std::vector<double> p(50);
      double sum = 0;
      for (int64_t i = 0; i < 50; ++i) sum += p[i] = std::exp(all[static_cast<int64_t>(t)][i].item<double>());
      for (double& x : p) x /= sum;
      out.push_back(score(p, t));
    }
    return out;
  }
  static std::vector<int64_t> best(const std::vector<double>& scores, size_t n) {
    std::vector<int64_t> order(scores.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    order.resize(n);
    std::sort(order.begin(), order.end());
    return order;
  }

  TemporaryDirectory directory_;
  LanguageModel model_ = small_model();
};

TEST_F(PolicyTest, EntropyAndMarginAreThoseOfTheRecurrence) {
  const auto ids = random_tokens(1, 60);
  const auto entropy = scores(ids, Mode::recurrent, [](const std::vector<double>& p, size_t) {
    double sum = 0;
    for (double x : p) sum -= x * std::log(x);
    return sum;
  });
  EXPECT_EQ(attended(route("entropy:0.2:1", {ids, 60, {}})), best(entropy, 12));
  const auto margin = scores(ids, Mode::recurrent, [](std::vector<double> p, size_t) {
    std::sort(p.begin(), p.end());
    return 1 - (p[49] - p[48]);
  });
  EXPECT_EQ(attended(route("margin:0.2:1", {ids, 60, {}})), best(margin, 12));
}

TEST_F(PolicyTest, OracleTakesWhatGainsMost) {
  const auto ids = random_tokens(2, 41);
  const auto loss = [&](Mode mode, const std::vector<int64_t>& targets) {
    return scores(ids, mode, [&](const std::vector<double>& p, size_t t) {
      return targets[t] < 0 ? 0 : -std::log(p[targets[t]]);
    });
  };
  std::vector<int64_t> next(ids.begin() + 1, ids.end());
  next.push_back(-100);
  for (const auto& targets : {next, std::vector<int64_t>(41, 7)}) {
    auto gain = loss(Mode::recurrent, targets);
    const auto attention = loss(Mode::attention, targets);
    for (size_t t = 0; t < gain.size(); ++t) gain[t] -= attention[t];
    EXPECT_EQ(attended(route("oracle:0.25:1", {ids, 0, targets == next ? std::vector<int64_t>{} : targets})),
              best(gain, 10));
  }
  EXPECT_THROW(make("oracle:0.1")->start(model_, 10), InputError);
}

TEST_F(PolicyTest, GateIsTheFormula) {
  const auto ids = random_tokens(3, 50);
  c10::NoGradGuard no_grad;
  const SequenceLayout layout({{MixerSchedule::uniform(Mode::recurrent, 50)}}, 2);
  const at::Tensor h = model_.hidden(at::tensor(ids, at::kLong), layout).to(at::kFloat);
  std::vector<float> features;
  Repeats().read(ids, features);
  const at::Tensor x = at::cat({h, at::tensor(features).view({50, Repeats::kFeatures})}, 1);
  const Gate gate = Gate::load(directory_.path(), model_);
  const auto w = gate.parameters();
  std::vector<double> gain;
  for (int64_t t = 0; t < 50; ++t) {
    double sum = w[3][0].item<double>();
    for (int64_t m = 0; m < 4; ++m) {
      const double a = (w[0][m] * x[t]).sum().item<double>() + w[1][m].item<double>();
      sum += w[2][0][m].item<double>() * a / (1 + std::exp(-a));
    }
    gain.push_back(sum);
  }
  EXPECT_EQ(attended(route("gate:0.1:1", {ids, 50, {}})), best(gain, 5));
}

TEST_F(PolicyTest, NoModeDependsOnALaterToken) {
  for (const char* text : {"entropy:0.3:1", "margin:0.3:8", "gate:0.3:4"}) {
    const auto ids = random_tokens(4, 120);
    const auto modes = route(text, {ids, 20, {}});
    EXPECT_GT(attended(modes).size(), 10u) << text;
    for (int64_t from : {20, 21, 70, 119}) {
      auto changed = ids;
      for (size_t t = from; t < changed.size(); ++t) changed[t] = (changed[t] + 17) % 50;
      EXPECT_EQ(route(text, {changed, 20, {}}).slice(0, from), modes.slice(0, from)) << text << " " << from;
    }
  }
}

TEST_F(PolicyTest, SequencesDoNotKnowOfEachOther) {
  const auto policy = make("entropy:0.3:2");
  std::vector<RoutingRequest> requests;
  for (uint64_t i = 0; i < 5; ++i)
    requests.push_back({random_tokens(i, 3000 * (i % 2) + 40 * i), static_cast<int64_t>(10 * i), {}});
  const auto together = policy->route(model_, requests);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(together[i], policy->route(model_, {requests[i]})[0]) << i;
}

TEST_F(PolicyTest, GenerationGivesTheModesOfTheFinishedSequence) {
  const auto prompt = random_tokens(6, 30);
  for (const char* text : {"entropy:0.3:1", "margin:0.3:8", "gate:0.5:4"}) {
    const auto policy = make(text);
    Generator generator(model_, prompt, policy->start(model_, 100), {1.0, 5});
    auto ids = prompt;
    std::vector<Mode> modes;
    for (int i = 0; i < 70; ++i) {
      const GeneratedToken token = generator.next();
      ids.push_back(token.id);
      modes.push_back(token.mode);
    }
    ids.pop_back();  // never read
    const MixerSchedule schedule = policy->route(model_, {{ids, 30, {}, 29}})[0];
    for (int64_t i = 0; i < 70; ++i) EXPECT_EQ(modes[i], schedule.at(29 + i, 0)) << text << " " << i;
    EXPECT_DOUBLE_EQ(generator.attention_fraction(), schedule.attention_fraction(2)) << text;
  }
}

TEST_F(PolicyTest, AGeneratedTokenGetsWhatThePromptSaved) {
  const auto prompt = random_tokens(8, 200);
  const auto schedule = route("entropy:0.05:1", {prompt, 200, {}, 199, 30});
  // 199 tokens that nobody predicts from save 9.95.
  EXPECT_EQ(schedule.str(), "recurrent:..199,attention:199..209,recurrent:209..");
  EXPECT_EQ(schedule.length(), 230);
  // The way there: none of the prompt's lines, then ten tokens.
  const auto policy = make("entropy:0.05:1");
  Generator generator(model_, prompt, policy->start(model_, 230), {1.0, 5});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(generator.next().mode, Mode::attention) << i;
  EXPECT_DOUBLE_EQ(generator.attention_fraction(), 10.0 / 209);
  // With no budget nothing is spent, and one token of prompt has saved nothing.
  EXPECT_EQ(route("entropy:0:1", {prompt, 200, {}, 199, 30}).str(), "recurrent");
  EXPECT_EQ(make("entropy:0.05:1")->start(model_, 9)->read({3}).length(), 1);
  EXPECT_THROW(route("entropy:0.1", {random_tokens(1, 5), 5, {}, 6}), InputError);
}

TEST_F(PolicyTest, AScheduleIsAPolicy) {
  const auto policy = schedule_policy(ScheduleSpec::parse("tail:0.25"));
  EXPECT_EQ(policy->route(model_, {{random_tokens(1, 8), 0, {}}})[0].str(), "recurrent:..6,attention:6..");
  EXPECT_THROW(policy->start(model_, 8), InputError);  // counts from the end
}

TEST_F(PolicyTest, Errors) {
  for (const char* text : {"", "entropi:0.1", "entropy", "entropy:", "entropy:x", "entropy:1.5", "entropy:-0.1",
                           "entropy:nan", "entropy:0.1:", "entropy:0.1:0", "entropy:0.1:16:2", "entropy:0.1:99999999"})
    EXPECT_THROW(make(text), InputError) << text;
  EXPECT_THROW(make_policy("entropy:0.1", directory_.path(), small_model("transformer-tiny")), InputError);
  const TemporaryDirectory empty;
  EXPECT_THROW(make_policy("gate:0.1", empty.path(), model_), InputError);
  Gate(16, 4, 1, at::kCPU).save(empty.path());  // of another width
  EXPECT_THROW(make_policy("gate:0.1", empty.path(), model_), InputError);
  EXPECT_THROW(route("entropy:0.1", {random_tokens(1, 5), 6, {}}), InputError);
}

}  // namespace
}  // namespace oryx
