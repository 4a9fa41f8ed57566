#include "cli/compare_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/progress.h"
#include "cli/text_table.h"
#include "eval/report/html.h"
#include "eval/report/line_chart.h"

namespace oryx::cli {
namespace {

using report::escape_html;
using report::LineChart;
using report::Marker;
using report::Point;

constexpr const char* kNone = "–";

// In the order in which a table shows them.
std::vector<std::string> modes(const Json& results) {
  std::vector<std::string> found;
  for (const char* mode : {"attention", "recurrent", "mixed", "tail", "schedule"})
    if (std::ranges::any_of(results.at("models"), [&](const Json& m) { return m.at("val_loss").contains(mode); }))
      found.emplace_back(mode);
  return found;
}

std::string with_error(const Json& spread, const char* mean_format) {
  std::string text = fmt::format(fmt::runtime(mean_format), spread.at("mean").get<double>());
  if (spread.at("standard_error").is_number())
    text += fmt::format(" ± {:.4f}", spread.at("standard_error").get<double>());
  return text;
}

// The table that all forms of the report show, headings first.
TextTable cells(const Json& results) {
  std::vector<std::string> headings{"Model", "Parameters", "Tie ratio", "Seeds"};
  for (const std::string& mode : modes(results)) headings.push_back(mode);
  headings.insert(headings.end(), {"Attention to baseline", "Recurrent to baseline", "Tokens/s"});
  TextTable rows{headings};
  for (const Json& model : results.at("models")) {
    auto& row = rows.emplace_back();
    double tie_ratio = 1;
    for (const auto& [mode, ratio] : model.at("tie_ratio").items())
      tie_ratio = std::min(tie_ratio, ratio.get<double>());
    row = {model.at("name").get<std::string>(), human_count(model.at("parameters").get<double>()),
           model.at("mixers").size() > 1 ? fmt::format("{:.3f}", tie_ratio) : kNone,
           fmt::format("{}", model.at("runs").size())};
    for (const std::string& mode : modes(results))
      row.push_back(model.at("val_loss").contains(mode) ? with_error(model["val_loss"][mode], "{:.4f}") : kNone);
    for (const char* mode : {"attention", "recurrent"}) {
      const Json& differences = model.at("against_baseline");
      row.push_back(differences.contains(mode) ? fmt::format("{} ({})", with_error(differences[mode], "{:+.4f}"),
                                                             differences[mode]["baseline"].get<std::string>())
                                               : kNone);
    }
    row.push_back(model.at("tokens_per_s").is_number() ? human_count(model["tokens_per_s"].get<double>()) : kNone);
  }
  return rows;
}

std::string explanation(const Json& results) {
  return fmt::format(
      "Validation loss in nats per token at the end of {} tokens, by mode; mean ± standard error over the seeds (none "
      "for one seed). To baseline: the difference to the model that has only this mixer, taken seed by seed. "
      "Parameters are without embeddings; the tie ratio is the lower of both modes.{}",
      human_count(results.at("tokens").get<double>()),
      results.at("finished").get<bool>() ? "" : " Not all runs are finished.");
}

// The mean over a model's runs of one kind of points, where all runs have one, with its standard error.
std::vector<Point> mean_curve(const Json& model, const char* list, const char* x, const std::string& key) {
  std::map<double, std::vector<double>> values;
  for (const Json& run : model.at("runs"))
    for (const Json& p : run.at(list))
      if (p.contains(key) && p[key].is_number()) values[p.at(x).get<double>()].push_back(p[key].get<double>());
  std::vector<Point> points;
  for (const auto& [tokens, all] : values) {
    if (all.size() < model.at("runs").size()) continue;
    const auto n = static_cast<double>(all.size());
    double mean = 0, squares = 0;
    for (const double v : all) mean += v / n;
    for (const double v : all) squares += (v - mean) * (v - mean);
    points.push_back({tokens, mean});
    if (n > 1) points.back().error = std::sqrt(squares / (n - 1) / n);
  }
  return points;
}

// Colours, and markers that go through their turns at another pace.
constexpr std::array kStyles{"attention", "recurrent", "mixed", "other"};
constexpr std::array kMarkers{Marker::circle, Marker::square, Marker::diamond, Marker::triangle};

// One line for each model that has points in `list` of its runs, always in the same colour.
LineChart model_lines(LineChart chart, const Json& results, const char* list, const char* x, const std::string& key) {
  for (size_t i = 0; i < results.at("models").size(); ++i) {
    const Json& model = results["models"][i];
    const size_t round = i / kStyles.size();
    auto points = mean_curve(model, list, x, key);
    if (!points.empty())
      chart.series.push_back({model.at("name").get<std::string>(), kStyles[i % kStyles.size()], std::move(points),
                              kMarkers[(i + round) % kMarkers.size()], round % 2 == 1});
  }
  return chart;
}

// Over training. The range is that of what follows the first tenth, where the models differ.
LineChart over_tokens(LineChart chart, const Json& results, const char* list, const std::string& key) {
  const auto tokens = results.at("tokens").get<double>();
  chart.x = {"tokens seen", report::Unit::count, false, 0, tokens};
  chart = model_lines(std::move(chart), results, list, "tokens", key);
  for (const auto& series : chart.series)
    for (const Point& p : series.points)
      if (p.x >= tokens / 10) chart.y.high = std::max(chart.y.high.value_or(p.y), p.y + p.error.value_or(0));
  return chart;
}

LineChart loss_chart(const std::string& title, const std::string& caption) {
  LineChart chart;
  chart.title = title;
  chart.caption = caption;
  chart.y = {"loss, nats per token"};
  return chart;
}

std::string charts(const Json& results) {
  const std::string bars = "Bars: standard error over the seeds.";
  std::string out = "<h2 id=\"curves\">Curves</h2>\n";
  for (const std::string& mode : modes(results))
    out += over_tokens(loss_chart("Validation loss, " + mode, bars), results, "validation", mode).html();
  LineChart training =
      over_tokens(loss_chart("Training loss",
                             "Running means, of the mean over the seeds; models with two mixers change between them."),
                  results, "loss", "loss");
  for (auto& series : training.series) series.points = report::smoothed(series.points), series.marker = Marker::none;
  out += training.html();
  out += "<h2 id=\"positions\">Loss by position</h2>\n";
  for (const char* mode : {"attention", "recurrent"}) {
    LineChart chart = loss_chart(fmt::format("Validation loss by position, {}", mode), "Of the final models. " + bars);
    chart.x = {"position in the sequence"};
    chart = model_lines(std::move(chart), results, "positions", "middle", mode);
    if (!chart.series.empty()) out += chart.html();
  }
  return out;
}

}  // namespace

std::string comparison_markdown(const Json& results) {
  std::string out = "# Comparison\n\n" + explanation(results) + "\n\n" + markdown_table(cells(results));
  out += "\n## Recipes\n\nCommon to all:\n\n```toml\n" + to_toml(results.at("common")) + "```\n";
  for (const Json& model : results.at("models"))
    out += fmt::format("\n{}:\n\n```toml\n{}```\n", model.at("name").get<std::string>(), to_toml(model.at("recipe")));
  return out;
}

std::string comparison_page(const Json& results) {
  std::string body =
      "<h1>Comparison</h1>\n<p class=\"lead\">Models trained on the same tokens in the same order.</p>\n";
  body += html_table("Validation loss", cells(results)) + "<p class=\"small\">" + escape_html(explanation(results)) +
          "</p>\n" + charts(results);
  const auto recipe = [](const std::string& heading, const Json& json) {
    return fmt::format("<details><summary>{}</summary>\n<pre>{}</pre></details>\n", escape_html(heading),
                       escape_html(to_toml(json)));
  };
  body += "<h2 id=\"recipes\">Recipes</h2>\n" + recipe("Common to all", results.at("common"));
  for (const Json& model : results.at("models"))
    body += recipe(model.at("name").get<std::string>(), model.at("recipe"));
  body +=
      fmt::format("<footer>Oryx {}. Every number of this page is in <code>comparison.json</code> beside it.</footer>\n",
                  escape_html(results.at("oryx").get<std::string>()));
  return report::html_page("Comparison", "Models trained on the same tokens: validation loss by mode", body);
}

}  // namespace oryx::cli
