#include "model/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "expect_error.h"

namespace oryx {
namespace {

constexpr Mode A = Mode::attention, R = Mode::recurrent;

ModelConfig model(std::vector<Mixer> mixers = {Mixer::attention, Mixer::gated_deltanet}) {
  ModelConfig config;
  config.mixers = std::move(mixers);
  config.num_hidden_layers = 12;
  return config;
}

MixerSchedule resolve(std::string_view text, int64_t length) {
  return ScheduleSpec::parse(text).resolve(length, model());
}

std::string printed(std::string_view text, int64_t length) {
  return resolve(text, length).str();
}

MixerSchedule random_schedule(Random& random, int64_t length) {
  std::vector<Span> spans;
  for (int64_t begin = 0; begin < length;) {
    const int64_t end = begin + 1 + static_cast<int64_t>(random.below(static_cast<uint64_t>(length - begin)));
    spans.push_back({begin, end, random.below(2) ? A : R});
    begin = end;
  }
  return MixerSchedule::from_spans(spans, length);
}

TEST(MixerSchedule, SortsDropsAndJoins) {
  const auto schedule =
      MixerSchedule::from_spans({{5, 9, A}, {0, 2, R}, {2, 2, A}, {2, 5, R}, {9, 10, A}, {10, 10, R}}, 10);
  EXPECT_EQ(schedule.common(), (std::vector<Span>{{0, 5, R}, {5, 10, A}}));
  EXPECT_EQ(schedule.str(), "recurrent:..5,attention:5..");
  EXPECT_EQ(MixerSchedule::uniform(A, 7).common(), (std::vector<Span>{{0, 7, A}}));
  EXPECT_TRUE(MixerSchedule::uniform(A, 0).common().empty());
  EXPECT_EQ(MixerSchedule(), MixerSchedule::uniform(R, 0));
}

TEST(MixerSchedule, RefusesGapsOverlapsAndEnds) {
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({{0, 5, R}, {4, 10, A}}, 10), "token 4 is covered twice");
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({{0, 5, R}, {6, 10, A}}, 10), "tokens 5..6 are not covered");
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({{0, 5, R}}, 10), "tokens 5..10 are not covered");
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({{1, 10, R}}, 10), "tokens 0..1 are not covered");
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({{0, 11, R}}, 10), "passes the end: there are 10 tokens");
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({{-1, 10, R}}, 10), "begins before token 0");
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({{0, 10, R}, {7, 6, A}}, 10), "ends before it begins");
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({}, 1), "not covered");
  EXPECT_INPUT_ERROR(MixerSchedule::from_spans({}, -1), "must not be negative");
}

TEST(MixerSchedule, LayersOfTheirOwn) {
  const auto base = MixerSchedule::uniform(R, 10);
  const auto hybrid = base.with_layer(3, MixerSchedule::uniform(A, 10))
                          .with_layer(7, MixerSchedule::from_spans({{0, 4, R}, {4, 10, A}}, 10))
                          .with_layer(9, MixerSchedule::uniform(A, 10));
  EXPECT_EQ(hybrid.str(), "*=recurrent;3,9=attention;7=recurrent:..4,attention:4..");
  EXPECT_EQ(hybrid.at(5, 0), R);
  EXPECT_EQ(hybrid.at(5, 3), A);
  EXPECT_EQ(hybrid.at(3, 7), R);
  EXPECT_EQ(hybrid.at(4, 7), A);
  EXPECT_TRUE(hybrid.uses(A));
  EXPECT_FALSE(base.uses(A));
  EXPECT_DOUBLE_EQ(hybrid.attention_fraction(10), 26.0 / 100);
  EXPECT_DOUBLE_EQ(hybrid.attention_fraction(4), 10.0 / 40);  // layers 7 and 9 do not exist
  EXPECT_EQ(hybrid.with_layer(3, base).with_layer(7, base).with_layer(9, base), base);
  EXPECT_EQ(hybrid.slice(5, 10).str(), "*=recurrent;3,7,9=attention");
  EXPECT_EQ(hybrid.slice(0, 4).str(), "*=recurrent;3,9=attention");
  EXPECT_EQ(hybrid.slice(4, 4), MixerSchedule());
  EXPECT_INPUT_ERROR(hybrid.slice(4, 11), "not a part");
  EXPECT_INPUT_ERROR(hybrid.at(10, 0), "no token 10");
  EXPECT_INPUT_ERROR(base.with_layer(-1, base), "no layer -1");
  EXPECT_INPUT_ERROR(base.with_layer(1, MixerSchedule::uniform(A, 9)), "for 9 tokens");
}

TEST(MixerSchedule, ExchangedTwiceIsItself) {
  const auto schedule = resolve("*=recurrent:..4,attention:4..;3=attention", 10);
  EXPECT_EQ(schedule.exchanged().str(), "*=attention:..4,recurrent:4..;3=recurrent");
  EXPECT_EQ(schedule.exchanged().exchanged(), schedule);
}

TEST(MixerSchedule, SliceAgreesWithAt) {
  Random random{1};
  for (int round = 0; round < 200; ++round) {
    const auto length = static_cast<int64_t>(1 + random.below(40));
    auto schedule = random_schedule(random, length).with_layer(2, random_schedule(random, length));
    const auto begin = static_cast<int64_t>(random.below(static_cast<uint64_t>(length)));
    const auto end = begin + static_cast<int64_t>(random.below(static_cast<uint64_t>(length - begin) + 1));
    const auto part = schedule.slice(begin, end);
    ASSERT_EQ(part.length(), end - begin);
    double attention = 0;
    for (int64_t layer = 0; layer < 4; ++layer) {
      for (int64_t token = begin; token < end; ++token) {
        ASSERT_EQ(part.at(token - begin, layer), schedule.at(token, layer));
        attention += part.at(token - begin, layer) == A;
      }
    }
    if (end > begin) {
      ASSERT_NEAR(part.attention_fraction(4), attention / static_cast<double>(4 * (end - begin)), 1e-12);
    }
  }
}

TEST(ScheduleSpec, ReadsTheWholeGrammar) {
  EXPECT_EQ(printed("attention", 10), "attention");
  EXPECT_EQ(printed(" recurrent ", 10), "recurrent");
  EXPECT_EQ(printed("gated_deltanet", 10), "recurrent");
  EXPECT_EQ(printed("recurrent:..900,attention:900..", 1000), "recurrent:..900,attention:900..");
  EXPECT_EQ(printed("attention:900.., gated_deltanet:..900", 1000), "recurrent:..900,attention:900..");
  EXPECT_EQ(printed("recurrent:..900,attention:900..", 900), "recurrent");
  EXPECT_EQ(printed("recurrent:..-64,attention:-64..", 100), "recurrent:..36,attention:36..");
  EXPECT_EQ(printed("recurrent:..-64,attention:-64..", 64), "attention");
  EXPECT_EQ(printed("attention:..", 5), "attention");
  EXPECT_EQ(printed("attention:..4,recurrent:4..6,attention:6..10", 10), "attention:..4,recurrent:4..6,attention:6..");
  EXPECT_EQ(printed("alternate:256", 600), "recurrent:..256,attention:256..512,recurrent:512..");
  EXPECT_EQ(printed("alternate:256", 256), "recurrent");
  EXPECT_EQ(printed("alternate:9223372036854775807", 10), "recurrent");
  EXPECT_EQ(printed("*=recurrent;3,7,11=attention", 10), "*=recurrent;3,7,11=attention");
  EXPECT_EQ(printed("0 = tail:0.5 ; * = alternate:5 ; 1=recurrent:..-1,attention:-1..", 10),
            "*=recurrent:..5,attention:5..;1=recurrent:..9,attention:9..");
  EXPECT_EQ(ScheduleSpec::parse(" tail:0.1 ").text(), "tail:0.1");
}

TEST(ScheduleSpec, TailIsRoundedUp) {
  EXPECT_EQ(printed("tail:0.1", 10), "recurrent:..9,attention:9..");
  EXPECT_EQ(printed("tail:0.1", 11), "recurrent:..9,attention:9..");
  EXPECT_EQ(printed("tail:0.07", 100), "recurrent:..93,attention:93..");  // 0.07 * 100 = 7.000000000000001
  EXPECT_EQ(printed("tail:0.001", 10), "recurrent:..9,attention:9..");
  EXPECT_EQ(printed("tail:0", 10), "recurrent");
  EXPECT_EQ(printed("tail:1", 10), "attention");
  for (int64_t length = 1; length <= 1000; ++length) {  // every multiple of a hundredth, against integers
    for (int64_t percent : {1, 7, 10, 29, 57, 58, 99}) {
      const auto schedule = resolve(fmt::format("tail:0.{:02}", percent), length);
      const int64_t tail = (percent * length + 99) / 100;
      ASSERT_NEAR(schedule.attention_fraction(1) * static_cast<double>(length), static_cast<double>(tail), 1e-9)
          << percent << "% of " << length;
    }
  }
}

TEST(ScheduleSpec, RandomIsDrawnPerChunkFromItsSeed) {
  Random random{18446744073709551615ull};
  const auto schedule = resolve("random:4:0.3:18446744073709551615", 1002);
  for (int64_t chunk = 0; chunk * 4 < 1002; ++chunk) {
    const Mode expected = random.uniform() < 0.3 ? A : R;
    for (int64_t token = chunk * 4; token < std::min<int64_t>(1002, chunk * 4 + 4); ++token) {
      ASSERT_EQ(schedule.at(token, 0), expected);
    }
  }
  EXPECT_EQ(resolve("random:4:0.3:18446744073709551615", 2000).slice(0, 1002), schedule);
  EXPECT_NE(resolve("random:4:0.3:1", 1002), schedule);
  EXPECT_EQ(printed("random:4:0:1", 100), "recurrent");
  EXPECT_EQ(printed("random:4:1:1", 100), "attention");
  EXPECT_NEAR(resolve("random:1:0.3:5", 100000).attention_fraction(1), 0.3, 5 * std::sqrt(0.21 / 100000));
}

TEST(ScheduleSpec, RefusesWhatTheGrammarDoesNotAllow) {
  const auto parse = [](std::string_view text) { return ScheduleSpec::parse(text); };
  EXPECT_INPUT_ERROR(parse(""), "an empty schedule; a schedule is attention, recurrent");
  EXPECT_INPUT_ERROR(parse("atention"), "did you mean 'attention'?; a schedule is");
  EXPECT_INPUT_ERROR(parse("attention,recurrent"), "is not a schedule");
  EXPECT_INPUT_ERROR(parse("attention:..5,recurent:5.."), "'recurent' is not a mode; did you mean 'recurrent'?");
  EXPECT_INPUT_ERROR(parse("attention:..5,"), "'' is not a mode");
  EXPECT_INPUT_ERROR(parse("attention:..5,recurrent"), "it must be MODE:BEGIN..END");
  EXPECT_INPUT_ERROR(parse("attention:5"), "is not a schedule");
  EXPECT_INPUT_ERROR(parse("attention:x..5"), "'x' is not a position");
  EXPECT_INPUT_ERROR(parse("attention:-0.."), "'-0' is not a position");
  EXPECT_INPUT_ERROR(parse("attention:..99999999999999999999"), "is not a position");
  EXPECT_INPUT_ERROR(parse("attention:0..5..7"), "is not a position");
  EXPECT_INPUT_ERROR(parse("alternate"), "must have the form alternate:CHUNK");
  EXPECT_INPUT_ERROR(parse("alternate:0"), "'0' is not a chunk length");
  EXPECT_INPUT_ERROR(parse("alternate:-5"), "is not a chunk length");
  EXPECT_INPUT_ERROR(parse("tail:1.5"), "'1.5' is not a fraction");
  EXPECT_INPUT_ERROR(parse("tail:nan"), "is not a fraction");
  EXPECT_INPUT_ERROR(parse("random:4:0.5"), "must have the form random:CHUNK:PROBABILITY:SEED");
  EXPECT_INPUT_ERROR(parse("random:4:2:1"), "'2' is not a probability");
  EXPECT_INPUT_ERROR(parse("random:4:0.5:-1"), "'-1' is not a seed");
  EXPECT_INPUT_ERROR(parse("3=attention"), "no '*='");
  EXPECT_INPUT_ERROR(parse("*=attention;*=recurrent"), "'*=' appears twice");
  EXPECT_INPUT_ERROR(parse("*=attention;3,3=recurrent"), "layer 3 appears twice");
  EXPECT_INPUT_ERROR(parse("*=attention;-1=recurrent"), "'-1' is not a layer");
  EXPECT_INPUT_ERROR(parse("*=attention;"), "must have the form LAYERS=SCHEDULE");
  EXPECT_INPUT_ERROR(parse("*=*=attention"), "is not a schedule");
  EXPECT_INPUT_ERROR(parse(std::string(1 << 21, 'a')), "the limit is");
  EXPECT_INPUT_ERROR(parse("\xff\n\r"), "schedule '\\xff'");
}

TEST(ScheduleSpec, RefusesWhatDoesNotFitTheLength) {
  EXPECT_INPUT_ERROR(
      resolve("recurrent:..900,attention:900..", 899),
      "schedule 'recurrent:..900,attention:900..': the span recurrent:0..900 passes the end: there are 899");
  EXPECT_INPUT_ERROR(resolve("recurrent:..-64,attention:-64..", 63), "-64 lies before the first of 63 tokens");
  EXPECT_INPUT_ERROR(resolve("recurrent:..5,attention:6..", 10), "tokens 5..6 are not covered");
  EXPECT_INPUT_ERROR(resolve("recurrent:..5,attention:-7..", 10), "token 3 is covered twice");
  EXPECT_INPUT_ERROR(resolve("attention", -1), "must not be negative");
}

TEST(ScheduleSpec, RefusesModesAndLayersThatTheModelDoesNotHave) {
  const auto bind = [](std::string_view text, const ModelConfig& config) {
    return ScheduleSpec::parse(text).resolve(10, config);
  };
  EXPECT_INPUT_ERROR(bind("mamba2", model()), "it names mamba2, but the model's recurrence is gated_deltanet");
  EXPECT_INPUT_ERROR(bind("attention", model({Mixer::mamba2})), "no attention mixer; its only one is mamba2");
  EXPECT_INPUT_ERROR(bind("recurrent", model({Mixer::attention})), "no recurrent mixer; its only one is attention");
  EXPECT_INPUT_ERROR(bind("attention:..10,mamba2:10..", model()), "it names mamba2");
  EXPECT_INPUT_ERROR(bind("tail:0.5", model({Mixer::mamba2})), "tail needs a model with attention and a recurrence");
  EXPECT_INPUT_ERROR(bind("alternate:2", model({Mixer::mamba2})), "alternate needs");
  EXPECT_INPUT_ERROR(bind("random:2:0.5:1", model({Mixer::attention})), "this one has only attention");
  EXPECT_INPUT_ERROR(bind("*=recurrent;12=attention", model()), "layer 12, but the model's layers are 0 to 11");
  EXPECT_EQ(bind("mamba2", model({Mixer::mamba2})).str(), "recurrent");
  EXPECT_INPUT_ERROR(ScheduleSpec::parse("alternate:1").resolve(int64_t{1} << 40, model()), "use longer chunks");
  std::string layers = "*=recurrent";
  for (int i = 0; i < 12; ++i) layers += fmt::format(";{}=alternate:1", i);
  EXPECT_INPUT_ERROR(ScheduleSpec::parse(layers).resolve(int64_t{1} << 20, model()), "use longer chunks");
}

TEST(ScheduleSpec, PrintingRoundTrips) {
  Random random{2};
  for (int round = 0; round < 2000; ++round) {
    const auto length = static_cast<int64_t>(random.below(50));
    MixerSchedule schedule = random_schedule(random, length);
    for (uint64_t i = random.below(4); i > 0; --i) {
      schedule = schedule.with_layer(static_cast<int64_t>(random.below(12)), random_schedule(random, length));
    }
    const std::string text = schedule.str();
    ASSERT_EQ(resolve(text, length), schedule) << text;
    ASSERT_EQ(printed(text, length), text);
  }
  // Without tokens too, and for a model with one mixer.
  EXPECT_EQ(ScheduleSpec::parse(MixerSchedule().str()).resolve(0, model({Mixer::mamba2})), MixerSchedule());
}

TEST(ScheduleSpec, OpenEndedForGeneration) {
  const auto open = [](std::string_view text, int64_t length) {
    return ScheduleSpec::parse(text).resolve_open(length, model()).str();
  };
  EXPECT_EQ(open("recurrent:..900,attention:900..", 1000), "recurrent:..900,attention:900..");
  EXPECT_EQ(open("recurrent:..900,attention:900..", 10), "recurrent");
  EXPECT_EQ(open("attention:..4,recurrent:4..6,attention:6..", 5), "attention:..4,recurrent:4..");
  EXPECT_EQ(open("attention", 1 << 30), "attention");
  EXPECT_EQ(open("alternate:4", 6), "recurrent:..4,attention:4..");
  EXPECT_EQ(open("random:4:1:1", 6), "attention");
  EXPECT_EQ(open("*=recurrent;1=attention:..7,recurrent:7..", 7), "*=recurrent;1=attention");
  EXPECT_INPUT_ERROR(open("recurrent:..-5,attention:-5..", 10),
                     "-5 counts from the end, which generation does not know");
  EXPECT_INPUT_ERROR(open("tail:0.5", 10), "tail counts from the end");
  EXPECT_INPUT_ERROR(open("recurrent:..5,attention:5..10", 8), "must be open at its end");
  EXPECT_INPUT_ERROR(open("recurrent:..5,attention:6..", 4), "tokens 5..6 are not covered");
  EXPECT_INPUT_ERROR(open("recurrent:..5,attention:..", 4), "covered twice");
  EXPECT_INPUT_ERROR(open("attention", -1), "must not be negative");
}

}  // namespace
}  // namespace oryx
