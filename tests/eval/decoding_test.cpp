#include "eval/decoding.h"

#include <gtest/gtest.h>

#include "eval/routing.h"
#include "expect_error.h"
#include "generate/engine.h"
#include "generate/small_model.h"

namespace oryx {
namespace {

TEST(Decoding, EqualsOneSequenceAtATime) {
  for (const char* kind : {"oryx-gdn-tiny", "oryx-mamba2-tiny", "transformer-tiny", "gdn-tiny"}) {
    const LanguageModel model = small_model(kind);
    const bool both = model.config().has(Mode::attention) && model.config().has(Mode::recurrent);
    const std::vector<const char*> schedules =
        both ? std::vector<const char*>{"attention", "recurrent", "recurrent:..12,attention:12..", "alternate:5",
                                        "attention:..30,recurrent:30.."}
             : std::vector<const char*>{model.config().has(Mode::attention) ? "attention" : "recurrent"};
    for (const char* text : schedules) {
      std::vector<DecodingRequest> requests;
      const auto add = [&](std::vector<int64_t> prompt, int64_t more) {
        const auto n = static_cast<int64_t>(prompt.size()) + more;
        requests.push_back({std::move(prompt), ScheduleSpec::parse(text).resolve_open(n, model.config())});
      };
      for (uint64_t i = 0; i < 6; ++i) add(random_tokens(i, 1 + static_cast<int64_t>(i) * 9), 10);
      auto longer = random_tokens(5, 46);  // the last one's prompt and more
      for (int64_t id : random_tokens(50, 3)) longer.push_back(id);
      add(longer, 4);
      add(longer, 4);  // twice the same
      for (const int64_t batch : {20, 8192}) {
        const auto got = decode_greedily(
            model, requests, [](size_t, const std::vector<int64_t>& c) { return c.back() % 7 == 0; }, batch);
        for (size_t i = 0; i < requests.size(); ++i) {
          Generator generator(model, requests[i].prompt, requests[i].schedule, {});
          std::vector<int64_t> want;
          const int64_t room = requests[i].schedule.length() - static_cast<int64_t>(requests[i].prompt.size());
          while (want.empty() || (want.back() % 7 != 0 && static_cast<int64_t>(want.size()) <= room))
            want.push_back(generator.next().id);
          EXPECT_EQ(got[i], want) << kind << ", " << text << ", request " << i;
        }
      }
    }
  }
}

TEST(Routing, SchedulesAsText) {
  const LanguageModel model = small_model();
  const std::vector<RoutedSequence> two{{random_tokens(1, 10), 6, 3}, {random_tokens(2, 4), 1, 0}};
  const auto routed = [&](const char* text) {
    std::string out;
    for (const auto& s : make_routing(text, model.config())->route(model, two)) {
      out += (out.empty() ? "" : " | ") + s.str();
    }
    return out;
  };
  EXPECT_EQ(routed("attention"), "attention | attention");
  EXPECT_EQ(routed("tail:0.2"), "recurrent:..8,attention:8.. | recurrent:..3,attention:3..");
  EXPECT_EQ(routed("recurrent:..-2,attention:-2.."), "recurrent:..8,attention:8.. | recurrent:..2,attention:2..");
  // Absolute positions: those past a short sequence's end do not matter, and generation goes on with them.
  EXPECT_EQ(routed("recurrent:..12,attention:12.."), "recurrent:..12,attention:12.. | recurrent");
  EXPECT_EQ(routed("alternate:4"), "recurrent:..4,attention:4..8,recurrent:8..12,attention:12.. | recurrent");
  EXPECT_EQ(routed("question"), "recurrent:..6,attention:6.. | recurrent:..1,attention:1..");
  EXPECT_EQ(routed("*=recurrent;1=tail:0.1"),
            "*=recurrent;1=recurrent:..9,attention:9.. | *=recurrent;1=recurrent:..3,attention:3..");
  const auto schedules = make_routing("tail:0.2", model.config())->route(model, two);
  EXPECT_EQ(schedules[0].length(), 13);
  EXPECT_EQ(schedules[1].length(), 4);
  EXPECT_INPUT_ERROR(make_routing("atention", model.config()), "attention");
  EXPECT_INPUT_ERROR(make_routing("recurrent:..-6,attention:-6..", model.config())->route(model, two), "4 tokens");
}

TEST(Routing, APolicyKnowsWhatIsGivenAndNoMore) {
  const LanguageModel model = small_model();
  const auto routing = [&] { return make_routing(make_policy("entropy:0.3:4", "", model)); };
  EXPECT_EQ(routing()->text(), "entropy:0.3:4");
  const auto prompt = random_tokens(1, 40);
  auto one = prompt, other = prompt;
  one.push_back(3), one.push_back(4), other.push_back(30), other.push_back(31);
  // Two answers to one question: their prompt is read in the same way.
  const auto both = routing()->route(model, {{one, 30, 0, 40}, {other, 30, 0, 40}});
  EXPECT_EQ(both[0].slice(0, 40), both[1].slice(0, 40));
  const MixerSchedule alone = routing()->route(model, {{prompt, 30, 5, 40}})[0];
  EXPECT_EQ(alone.str(), "recurrent:..39,attention:39..");  // text is generated from its last token and those after it
  EXPECT_EQ(alone.length(), 45);
}

TEST(Routing, PlacementsHoldTheFraction) {
  for (const char* where : {"tail", "head", "random", "every"}) {
    for (const int64_t length : {1, 7, 16, 100, 333}) {
      for (const double fraction : {0.0, 0.01, 0.07, 0.25, 0.5, 1.0}) {
        const MixerSchedule s = place_attention({where, fraction, 5}, length, 0);
        ASSERT_EQ(s.length(), length);
        const double want = std::ceil(fraction * static_cast<double>(length) - 1e-9);
        EXPECT_NEAR(s.attention_fraction(1) * static_cast<double>(length), want, 1e-6) << where << " " << length;
      }
    }
  }
  EXPECT_EQ(place_attention({"head", 0.25}, 8, 0).str(), "attention:..2,recurrent:2..");
  EXPECT_EQ(place_attention({"every", 0.25}, 8, 0).str(), "recurrent:..3,attention:3..4,recurrent:4..7,attention:7..");
  EXPECT_EQ(place_attention({"question", 0.9}, 8, 5).str(), "recurrent:..5,attention:5..");
  EXPECT_NE(place_attention({"random", 0.3, 1}, 400, 0), place_attention({"random", 0.3, 2}, 400, 0));
  EXPECT_INPUT_ERROR(make_routing(Placement{"tails"}), "did you mean 'tail'");
  EXPECT_INPUT_ERROR(make_routing(Placement{"tail", 1.5}), "from 0 to 1");
}

}  // namespace
}  // namespace oryx
