#include "cli/demo_page.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/files.h"
#include "eval/xml_check.h"

namespace oryx::cli {
namespace {

Json spans(const char* first, const char* second) {
  return {{{"begin", 0}, {"end", 64}, {"mixer", first}}, {{"begin", 64}, {"end", 128}, {"mixer", second}}};
}

Json training(double first, double last) {
  Json loss = Json::array(), validation = Json::array();
  for (int i = 1; i <= 200; ++i) {
    const double mean = last + (first - last) * std::exp(-i / 40.0);
    loss.push_back({{"tokens", i * 80000}, {"loss", mean * (1 + 0.2 * std::sin(i * 12.9898))}});
    if (i % 12 == 0)
      validation.push_back(
          {{"tokens", i * 80000}, {"attention", mean * 0.9}, {"recurrent", mean * 1.1}, {"mixed", mean}});
  }
  return {{"tokens", 16000000},      {"steps", 3907}, {"seconds", 183.4},
          {"tokens_per_s", 87241.0}, {"loss", loss},  {"validation", validation}};
}

// Results as a run of the demo leaves them, with text that means something to HTML.
Json results() {
  Json curves = Json::array();
  for (const auto& [length, place] :
       {std::pair{128, "end"}, {256, "end"}, {1024, "end"}, {128, "start"}, {128, "spread"}}) {
    Json points = Json::array();
    for (int i = 0; i <= 10; ++i) {
      const double f = i / 10.0, accuracy = (0.3 + 0.7 * (place[0] == 'e' ? std::sqrt(f) : f * f)) * 128 / length;
      points.push_back({{"schedule", fmt::format("{}:{}", place, i)},
                        {"attention_fraction", f},
                        {"accuracy", accuracy},
                        {"queries", 3072}});
    }
    curves.push_back({{"length", length}, {"attention_at", place}, {"points", points}});
  }
  const auto recall_row = [](const char* name, const char* schedule, double fraction, double accuracy,
                             const Json& where) {
    return Json{{"name", name},
                {"schedule", schedule},
                {"spans", where},
                {"accuracy", accuracy},
                {"examples", 512},
                {"queries", 16384},
                {"attention_fraction", fraction}};
  };
  const auto text_row = [](const char* name, const char* schedule, double fraction, double nats) {
    return Json{{"name", name},           {"schedule", schedule},          {"spans", spans("recurrent", "attention")},
                {"nats_per_token", nats}, {"perplexity", std::exp(nats)},  {"bits_per_byte", nats / 2.3},
                {"tokens", 123456},       {"attention_fraction", fraction}};
  };
  const Json task{{"vocab", 256}, {"pairs", 32}, {"length", 128}};
  return {{"oryx", "0.1.0"},
          {"quick", false},
          {"machine", {{"processor", "A <fast> & quiet CPU"}, {"cores", 2}, {"threads", 2}}},
          {"recall",
           {{"model", "out/demo/recall/model"},
            {"parameters", 123456},
            {"task", task},
            {"mixing_chunk", 16},
            {"schedules",
             {recall_row("all in attention", "attention", 1, 0.998, spans("attention", "attention")),
              recall_row("all recurrent", "recurrent", 0, 0.681, spans("recurrent", "recurrent")),
              recall_row("context recurrent, queries in attention", "recurrent:..64,attention:64..", 0.5, 0.9975,
                         spans("recurrent", "attention")),
              recall_row("context in attention, queries recurrent", "attention:..64,recurrent:64..", 0.5, 0.679,
                         spans("attention", "recurrent"))}},
            {"curves", curves},
            {"training", training(5.5, 0.2)}}},
          {"text",
           {{"model", "out/demo/text/model"},
            {"parameters", 1200000},
            {"config", {{"vocab_size", 2048}}},
            {"context", 256},
            {"perplexity",
             {text_row("attention", "attention", 1, 4.1), text_row("recurrent", "recurrent", 0, 4.15),
              text_row("alternating", "alternate:16", 0.5, 4.13),
              text_row("attention for the last tenth", "tail:0.1", 0.1, 4.14)}},
            {"sample",
             {{"model", "models/oryx-gdn-31m"},
              {"parameters", 30900000},
              {"prompt", "\"Rock & roll\", said"},
              {"prompt_tokens", 12},
              {"schedule", "alternate:16"},
              {"temperature", 0.8},
              {"seed", 7},
              {"pieces",
               {{{"mixer", "recurrent"}, {"text", " the <Queen>, and she looked"}, {"tokens", 7}},
                {{"mixer", "attention"},
                 {"text", " at the little door for a long time,\nwondering what to do."},
                 {"tokens", 16}},
                {{"mixer", "recurrent"}, {"text", " \xe2\x80\x9cYes\xe2\x80\x9d"}, {"tokens", 1}}}}}},
            {"training", training(7.6, 4.1)}}}};
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(DemoPage, ShowsTheFigures) {
  const std::string page = demo_page(results());
  for (const char* part :
       {"<strong>0.998</strong>", "<strong>0.681</strong>", "<strong>0.679</strong>", "50.0%", "<strong>60.34</strong>",
        "16384", "3m03s", "recurrent:..64,attention:64..", "1024 tokens</li>", "128 tokens, as trained</li>",
        "Where attention helps, 128 tokens", "oryx generate models/oryx-gdn-31m",
        "--prompt &#39;&quot;Rock &amp; roll&quot;, said&#39; --max-tokens 24"})
    EXPECT_TRUE(has(page, part)) << part;
  EXPECT_FALSE(has(page, "quick run"));
  Json quick = results();
  quick["quick"] = true;
  EXPECT_TRUE(has(demo_page(quick), "quick run"));
}

TEST(DemoPage, IsWellFormedEscapedAndAlone) {
  const std::string page = demo_page(results());
  EXPECT_EQ(report::unbalanced_tag(page), "");
  EXPECT_TRUE(has(page, "A &lt;fast&gt; &amp; quiet CPU"));
  EXPECT_TRUE(has(
      page, "<span class=\"by recurrent\" title=\"recurrent, 7 tokens\"> the &lt;Queen&gt;, and she looked</span>"));
  EXPECT_TRUE(has(page, "title=\"recurrent, 1 token\""));
  for (const char* outside : {"http:", "https:", "url(", "src=", "<script"})
    EXPECT_FALSE(has(page, outside)) << outside;
  if (const char* path = std::getenv("ORYX_DEMO_PAGE")) write_file_atomically(path, page);  // to look at
}

TEST(DemoSummary, MarksMixersWithAndWithoutColour) {
  const Json all = results();
  const std::string plain = text_summary(all.at("text"), false), colour = text_summary(all.at("text"), true);
  EXPECT_TRUE(has(plain, "said{ the <Queen>, and she looked}[ at the little door"));
  EXPECT_FALSE(has(plain, "\x1b"));
  EXPECT_TRUE(has(colour, "said\x1b[36m the <Queen>, and she looked\x1b[0m\x1b[33m at the little door"));
  EXPECT_TRUE(has(plain, "60.34"));
}

TEST(DemoSummary, RecallTable) {
  const std::string text = recall_summary(results().at("recall"));
  EXPECT_TRUE(has(text, "context recurrent, queries in attention        50.0%     0.998"));
  EXPECT_TRUE(has(text, "all recurrent                                   0.0%     0.681"));
  EXPECT_TRUE(has(text, "8 times the length"));
  EXPECT_TRUE(has(text, "end:10                                        100.0%     0.125"));
  EXPECT_FALSE(has(text, "start:10"));
}

}  // namespace
}  // namespace oryx::cli
