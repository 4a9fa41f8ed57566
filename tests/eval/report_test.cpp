#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "eval/report/axis.h"
#include "eval/report/html.h"
#include "eval/report/line_chart.h"
#include "eval/xml_check.h"

namespace oryx::report {
namespace {

std::vector<std::string> labels(const Scale& scale) {
  std::vector<std::string> out;
  for (const Tick& t : scale.ticks()) out.push_back(t.label);
  return out;
}

using Labels = std::vector<std::string>;

TEST(Html, EscapesWhatHasAMeaning) {
  EXPECT_EQ(escape_html("<b a=\"1\">'&'</b>"), "&lt;b a=&quot;1&quot;&gt;&#39;&amp;&#39;&lt;/b&gt;");
  EXPECT_EQ(escape_html("naïve – 日本\n\tx"), "naïve – 日本\n\tx");
  EXPECT_EQ(escape_html(std::string_view("a\0b\x1b[0m\x7f", 8)), "ab[0m");
}

TEST(Html, TableHasHeadingsAndEscapesText) {
  Table table("a < b", {{"name", Table::Align::left}, {"value"}});
  table.add_row({Table::text("<x>"), Table::markup("<strong>1</strong>")});
  const std::string html = table.html();
  EXPECT_NE(html.find("<caption>a &lt; b</caption>"), std::string::npos) << html;
  EXPECT_NE(html.find("<th scope=\"col\">name</th><th scope=\"col\" class=\"number\">value</th>"), std::string::npos)
      << html;
  EXPECT_NE(html.find("<th scope=\"row\">&lt;x&gt;</th><td class=\"number\"><strong>1</strong></td>"),
            std::string::npos)
      << html;
  EXPECT_EQ(unbalanced_tag(html), "");
  EXPECT_THROW(table.add_row({Table::text("alone")}), InputError);
}

TEST(Html, PageFetchesNothing) {
  const std::string page = html_page("A & B", "what it is", "<h1>A</h1>\n");
  EXPECT_NE(page.find("<title>A &amp; B</title>"), std::string::npos);
  EXPECT_NE(page.find("prefers-color-scheme: dark"), std::string::npos);
  for (const char* outside : {"http:", "https:", "url(", "@import", "src=", "<script", "<link"})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  EXPECT_EQ(unbalanced_tag(page), "");
}

TEST(Scale, LinearTicksAreRoundAndCoverTheData) {
  const Scale scale({"y"}, {0.13, 4.2}, 100, 0, 5);
  EXPECT_EQ(labels(scale), (Labels{"0", "1", "2", "3", "4", "5"}));
  EXPECT_DOUBLE_EQ(scale.place(0), 100);
  EXPECT_DOUBLE_EQ(scale.place(5), 0);
  EXPECT_DOUBLE_EQ(scale.place(2.5), 50);
  EXPECT_DOUBLE_EQ(scale.place(9), 0);
}

TEST(Scale, LabelsTellTicksApart) {
  EXPECT_EQ(labels(Scale({"x", Unit::percent, false, 0, 1}, {}, 0, 1, 5)),
            (Labels{"0%", "20%", "40%", "60%", "80%", "100%"}));
  EXPECT_EQ(labels(Scale({"x", Unit::percent, false, 0.99, 1}, {}, 0, 1, 4)),
            (Labels{"99.00%", "99.25%", "99.50%", "99.75%", "100.00%"}));
  EXPECT_EQ(labels(Scale({"x", Unit::count}, {0, 16e6}, 0, 1, 8)),
            (Labels{"0", "2M", "4M", "6M", "8M", "10M", "12M", "14M", "16M"}));
  EXPECT_EQ(labels(Scale({"x"}, {-0.2, 0.2}, 0, 1, 4)), (Labels{"-0.2", "-0.1", "0.0", "0.1", "0.2"}));
}

TEST(Scale, LogarithmicTicks) {
  const Scale scale({"x", Unit::count, true}, {100, 10000}, 0, 200, 5);
  EXPECT_EQ(labels(scale), (Labels{"100", "200", "500", "1k", "2k", "5k", "10k"}));
  EXPECT_NEAR(scale.place(1000), 100, 1e-9);
  EXPECT_FALSE(scale.shows(0));
  EXPECT_FALSE(scale.shows(-1));
  EXPECT_EQ(labels(Scale({"x", Unit::number, true}, {1e-6, 1}, 0, 1, 5)),
            (Labels{"0.000001", "0.00001", "0.0001", "0.001", "0.01", "0.1", "1"}));
}

TEST(Scale, DegenerateDataStillHasARange) {
  for (const std::vector<double>& values :
       {std::vector<double>{}, {3, 3}, {0}, {std::nan("")}, {std::numeric_limits<double>::infinity()}})
    for (const bool logarithmic : {false, true}) {
      const Scale scale({"x", Unit::number, logarithmic}, values, 0, 100, 5);
      EXPECT_LT(scale.low(), scale.high());
      EXPECT_GE(scale.ticks().size(), 2u);
      for (const Tick& t : scale.ticks()) EXPECT_TRUE(std::isfinite(scale.place(t.value)));
    }
}

TEST(FormatValue, ByUnit) {
  EXPECT_EQ(format_value(0.998, Unit::percent), "99.8%");
  EXPECT_EQ(format_value(4096000, Unit::count), "4.10M");
  EXPECT_EQ(format_value(3.14159, Unit::number), "3.142");
  EXPECT_EQ(format_value(123.456, Unit::number), "123.5");
  EXPECT_EQ(format_value(0.01234, Unit::number), "0.0123");
  EXPECT_EQ(format_value(0, Unit::number), "0");
  EXPECT_EQ(format_value(1e9, Unit::number), "1.000e+09");
  EXPECT_EQ(format_value(std::nan(""), Unit::number), "none");
}

LineChart two_lines() {
  LineChart chart;
  chart.title = "Loss & <accuracy>";
  chart.x = {"tokens", Unit::count};
  chart.y = {"loss", Unit::number, false, 0, 4};
  chart.width = 72 + 400;  // a plot of 400 by 200 units
  chart.height = 80 + 200;
  chart.series = {{"attention", "attention", {{0, 4}, {50, 2}, {100, 1}}, Marker::circle},
                  {"recurrent", "recurrent", {{0, 4}, {50, std::nan("")}, {100, 3, 0.5}}, Marker::square, true}};
  return chart;
}

TEST(LineChart, DrawsPointsWhereTheyAre) {
  const std::string html = two_lines().html();
  EXPECT_NE(html.find("<path class=\"line attention\" d=\"M52.0 34.0L252.0 134.0L452.0 184.0\"/>"), std::string::npos)
      << html;
  // A value that is not a number breaks the line in two.
  EXPECT_NE(html.find("<path class=\"line recurrent dashed\" d=\"M52.0 34.0M452.0 84.0\"/>"), std::string::npos)
      << html;
  // The interval of 3 +- 0.5.
  EXPECT_NE(html.find("M452.0 109.0V59.0"), std::string::npos) << html;
  EXPECT_NE(html.find("3.000 ± 0.5000"), std::string::npos) << html;
}

TEST(LineChart, IsWellFormedAndLabelled) {
  const std::string html = two_lines().html();
  EXPECT_EQ(unbalanced_tag(html), "");
  EXPECT_EQ(html.find("nan"), std::string::npos);
  for (const char* part : {"Loss &amp; &lt;accuracy&gt;", "role=\"img\" aria-label=", "<ul class=\"legend\">",
                           ">tokens</text>", ">loss</text>", "<summary>The numbers</summary>"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
}

TEST(LineChart, EmptyAndSingleSeries) {
  LineChart chart;
  chart.title = "nothing";
  EXPECT_EQ(unbalanced_tag(chart.html()), "");
  chart.series = {{"one", "other", {{1, 1}}, Marker::diamond}};
  const std::string html = chart.html();
  EXPECT_EQ(unbalanced_tag(html), "");
  EXPECT_NE(html.find("<g class=\"mark other\">"), std::string::npos);
}

// Many points make neither many tips nor a huge page: one place to point at for every few units.
TEST(LineChart, TipsAreThinnedOut) {
  LineChart chart = two_lines();
  chart.x = {"tokens", Unit::count, false, 0, 10000};
  chart.series[0].points.clear();
  for (int i = 0; i <= 10000; ++i) chart.series[0].points.push_back({static_cast<double>(i), 1});
  const std::string html = chart.html();
  size_t tips = 0;
  for (size_t at = html.find("class=\"hit\""); at != std::string::npos; at = html.find("class=\"hit\"", at + 1)) ++tips;
  EXPECT_GT(tips, 40u);
  EXPECT_LE(tips, 400 / 5 + 1u);
}

}  // namespace
}  // namespace oryx::report
