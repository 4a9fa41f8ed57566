#include "train/mixing.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace oryx {
namespace {

std::unique_ptr<MixingStrategy> strategy(const std::string& name, int64_t chunk = 16,
                                         const char* model = "oryx-gdn-tiny") {
  MixingConfig config;
  config.strategy = name, config.chunk = chunk;
  return make_mixing(config, preset(model), 256);
}

double fraction(const MixerSchedule& s) {
  return s.attention_fraction(1);
}

TEST(Mixing, IsAFunctionOfSeedStepAndSequence) {
  for (const char* name : {"random", "switch_once"}) {
    const auto mixing = strategy(name);
    const auto a = mixing->schedule(1, 2, 3, 256, 0);
    EXPECT_EQ(a, strategy(name)->schedule(1, 2, 3, 256, 0.5)) << name;
    int same = 0;
    for (int64_t i = 0; i < 50; ++i) same += mixing->schedule(1, i, 3, 256, 0) == mixing->schedule(1, i, 4, 256, 0);
    EXPECT_LT(same, 15) << name;
  }
}

TEST(Mixing, RandomDrawsAProbabilityForEachSequence) {
  const auto mixing = strategy("random", 1);
  int low = 0, high = 0;
  double sum = 0;
  const int n = 2000;
  for (int64_t i = 0; i < n; ++i) {
    const double f = fraction(mixing->schedule(7, i, 0, 256, 0));
    sum += f, low += f<0.1, high += f> 0.9;
  }
  EXPECT_NEAR(sum / n, 0.5, 0.03);
  EXPECT_NEAR(low / double(n), 0.1, 0.03);  // a probability fixed at 1/2 would give none
  EXPECT_NEAR(high / double(n), 0.1, 0.03);
}

TEST(Mixing, SwitchesOnlyAtChunks) {
  const auto mixing = strategy("random", 16);
  for (int64_t i = 0; i < 50; ++i) {
    const MixerSchedule schedule = mixing->schedule(3, i, 1, 250, 0);
    for (const Span& span : schedule.common()) EXPECT_EQ(span.begin % 16, 0);
  }
}

TEST(Mixing, Others) {
  EXPECT_EQ(fraction(strategy("attention")->schedule(0, 0, 0, 100, 0)), 1);
  EXPECT_EQ(fraction(strategy("recurrent")->schedule(0, 0, 0, 100, 0)), 0);
  EXPECT_EQ(strategy("alternate", 10)->schedule(0, 0, 0, 25, 0).str(),
            "recurrent:..10,attention:10..20,recurrent:20..");
  EXPECT_EQ(strategy("tail")->schedule(0, 0, 0, 25, 0).str(), "recurrent:..22,attention:22..");
  const auto once = strategy("switch_once");
  for (int64_t i = 0; i < 100; ++i) EXPECT_LE(once->schedule(5, i, 0, 64, 0).common().size(), 2u);
}

TEST(Mixing, BaselinesHaveTheirOnlyMixer) {
  EXPECT_EQ(fraction(strategy("random", 16, "transformer-tiny")->schedule(0, 0, 0, 64, 0)), 1);
  EXPECT_EQ(fraction(strategy("random", 16, "gdn-tiny")->schedule(0, 0, 0, 64, 0)), 0);
  EXPECT_THROW(strategy("attention", 16, "mamba2-tiny"), InputError);
}

TEST(Mixing, BothNeedsTwoMixers) {
  MixingConfig config;
  EXPECT_EQ(passes(config, preset("oryx-gdn-tiny")), 1);
  config.both = true;
  EXPECT_EQ(passes(config, preset("oryx-gdn-tiny")), 2);
  EXPECT_EQ(passes(config, preset("gdn-tiny")), 1);
}

TEST(Mixing, ScheduleIsTheHybridItNames) {
  MixingConfig config;
  config.strategy = "schedule", config.schedule = "*=recurrent;1=attention";
  const auto schedule = make_mixing(config, preset("oryx-gdn-tiny"), 256)->schedule(1, 2, 3, 40, 0);
  EXPECT_EQ(schedule.at(39, 0), Mode::recurrent);
  EXPECT_EQ(schedule.at(0, 1), Mode::attention);
  EXPECT_EQ(fraction(make_mixing(config, preset("gdn-tiny"), 256)->schedule(1, 2, 3, 40, 0)), 0);
  for (const char* text : {"*=recurrent;99=attention", "nonsense", "recurrent:..64,attention:64.."}) {
    config.schedule = text;
    EXPECT_THROW(make_mixing(config, preset("oryx-gdn-tiny"), 256), InputError) << text;
  }
}

TEST(Mixing, ScheduleGoesWithItsStrategy) {
  const auto read = [](const char* text) {
    const Json json = parse_json(text, "test");
    return MixingConfig::read({json, "test"});
  };
  EXPECT_EQ(read(R"({"strategy": "schedule", "schedule": "*=recurrent;1=attention"})").schedule,
            "*=recurrent;1=attention");
  EXPECT_EQ(read(R"({"strategy": "mixture", "schedule": "attention", "weights": {"schedule": 1}})").weights.size(), 1u);
  EXPECT_THROW(read(R"({"strategy": "schedule"})"), InputError);
  EXPECT_THROW(read(R"({"schedule": "attention"})"), InputError);
  EXPECT_THROW(read(R"({"strategy": "schedule", "schedule": "attention", "both": true})"), InputError);
}

TEST(Mixing, MixtureFollowsItsWeights) {
  MixingConfig config;
  config.strategy = "mixture";
  config.weights = {{"attention", 3}, {"recurrent", 1}};
  const auto mixing = make_mixing(config, preset("oryx-gdn-tiny"), 256);
  int attention = 0;
  for (int64_t i = 0; i < 4000; ++i) attention += fraction(mixing->schedule(9, i, 0, 8, 0)) == 1;
  EXPECT_NEAR(attention / 4000.0, 0.75, 0.03);
}

MixingConfig read(const char* json) {
  return MixingConfig::read(Fields(Json::parse(json), "mixing"));
}

TEST(Mixing, KeyGradientIsAPart) {
  const MixingConfig config = read(R"({"key_gradient": 0.25, "both": true})");
  EXPECT_EQ(config.key_gradient, 0.25);
  EXPECT_EQ(MixingConfig::read(Fields(config.to_json(), "again")).key_gradient, 0.25);
  EXPECT_EQ(read("{}").key_gradient, 1);
  for (const char* text : {R"({"key_gradient": -0.1})", R"({"key_gradient": 1.5})",
                           R"({"strategy": "phases", "phases": [{"strategy": "attention", "key_gradient": 0.5}]})"})
    EXPECT_THROW(read(text), InputError) << text;
}

TEST(Mixing, PhasesFollowProgress) {
  const MixingConfig config = read(
      R"({"strategy": "phases", "phases": [{"until": 0.25, "strategy": "attention"}, {"strategy": "recurrent"}]})");
  const auto mixing = make_mixing(config, preset("oryx-gdn-tiny"), 256);
  for (double progress : {0.0, 0.249, 0.25, 0.7, 1.0})
    EXPECT_EQ(fraction(mixing->schedule(1, 2, 3, 64, progress)), progress < 0.25 ? 1 : 0) << progress;
  EXPECT_EQ(MixingConfig::read(Fields(config.to_json(), "again")).to_json(), config.to_json());
}

TEST(Mixing, RefusesBadPhases) {
  for (const char* json : {
           R"({"strategy": "phases"})",
           R"({"phases": [{"strategy": "attention"}]})",
           R"({"strategy": "phases", "phases": {"strategy": "attention"}})",
           R"({"strategy": "phases", "phases": [3]})",
           R"({"strategy": "phases", "phases": [{"until": 0.5, "strategy": "attention"}]})",
           R"({"strategy": "phases", "phases": [{"until": 0.5}, {"until": 0.5}, {}]})",
           R"({"strategy": "phases", "phases": [{"strategy": "phases", "phases": [{}]}]})",
           R"({"strategy": "phases", "phases": [{"strategi": "attention"}]})",
       })
    EXPECT_THROW(read(json), InputError) << json;
}

}  // namespace
}  // namespace oryx
