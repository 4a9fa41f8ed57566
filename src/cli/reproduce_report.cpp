#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "base/progress.h"
#include "cli/reproduce_results.h"
#include "cli/text_table.h"
#include "eval/report/html.h"
#include "eval/report/line_chart.h"

namespace oryx::cli {
namespace {

using report::escape_html;
using report::LineChart;
using report::Marker;
using report::Unit;

constexpr const char* kNone = "–";

std::string text_of(const Json& object, const char* key) {
  return object.at(key).get<std::string>();
}

// "3.1416 ± 0.0012" of a SPREAD, or a dash.
std::string with_error(const Json& object, const char* key, bool sign = false) {
  if (!object.is_object() || !object.contains(key)) return kNone;
  const Json& spread = object[key];
  const auto mean = spread.at("mean").get<double>();
  std::string text = sign ? fmt::format("{:+.4f}", mean) : fmt::format("{:.4f}", mean);
  if (spread.at("standard_error").is_number()) text += fmt::format(" ± {:.4f}", spread["standard_error"].get<double>());
  return text;
}

TextTable claims_table(const Json& results) {
  TextTable rows{{"Claim", "Verdict"}};
  for (const Json& claim : results.at("claims")) rows.push_back({text_of(claim, "claim"), text_of(claim, "verdict")});
  return rows;
}

TextTable language_table(const Json& results) {
  TextTable rows{{"Model", "Mode", "Loss", "Perplexity", "Loss to baseline", "Accuracy", "Accuracy to baseline"}};
  for (const Json& row : results.at("language_modelling")) {
    const Json against = row.value("against_baseline", Json());
    rows.push_back(
        {text_of(row, "model"), text_of(row, "mode"), with_error(row, "val_loss"),
         row.contains("val_loss") ? fmt::format("{:.2f}", std::exp(row["val_loss"]["mean"].get<double>())) : kNone,
         with_error(against, "val_loss", true), with_error(row, "average"), with_error(against, "average", true)});
  }
  return rows;
}

// Each task of its own, models and modes in columns.
TextTable task_table(const Json& results) {
  TextTable rows{{"Task"}};
  std::vector<std::string> tasks;
  for (const Json& row : results.at("language_modelling"))
    for (const auto& [task, value] : row.at("tasks").items())
      if (std::ranges::find(tasks, task) == tasks.end()) tasks.push_back(task);
  for (const std::string& task : tasks) rows.push_back({task});
  for (const Json& row : results["language_modelling"]) {
    if (row["tasks"].empty()) continue;
    rows[0].push_back(fmt::format("{}, {}", text_of(row, "model"), text_of(row, "mode")));
    for (size_t i = 0; i < tasks.size(); ++i)
      rows[i + 1].push_back(row["tasks"].contains(tasks[i])
                                ? fmt::format("{:.3f}", row["tasks"][tasks[i]]["mean"].get<double>())
                                : kNone);
    for (size_t i = 0; i < tasks.size(); ++i)
      if (row["tasks"].contains(tasks[i]))
        rows[i + 1][0] = fmt::format("{} ({})", tasks[i], text_of(row["tasks"][tasks[i]], "metric"));
  }
  return rows;
}

TextTable retrieval_table(const Json& results) {
  TextTable rows{{"Model", "Attention at", "Tokens in attention", "Accuracy"}};
  Json last;
  for (const Json& row : results.at("retrieval")) {
    const std::string where = text_of(row, "where");
    // A policy that is allowed more than it can use.
    Json same = row;
    same.erase("fraction");
    if (same == last) continue;
    last = std::move(same);
    rows.push_back({text_of(row, "model"), where == "all" ? text_of(row, "mode") + " throughout" : where,
                    fmt::format("{:.1f}%", 100 * row.at("attention_fraction").get<double>()),
                    with_error(row, "accuracy")});
    for (const auto& [task, mean] : row.at("tasks").items()) {
      if (row["tasks"].size() < 2) break;
      if (rows.size() == 2) rows[0].push_back(task);
      rows.back().push_back(fmt::format("{:.3f}", mean.get<double>()));
    }
  }
  return rows;
}

TextTable model_table(const Json& results) {
  TextTable rows{{"Model", "Parameters", "Tie ratio, attention", "Tie ratio, recurrent", "Passes over a token",
                  "Tokens/s in training"}};
  for (const Json& model : results.at("comparison").at("models")) {
    const auto ratio = [&](const char* mode) {
      return model.at("mixers").size() > 1 && model.at("tie_ratio").contains(mode)
                 ? fmt::format("{:.3f}", model["tie_ratio"][mode].get<double>())
                 : kNone;
    };
    rows.push_back({text_of(model, "name"), human_count(model.at("parameters").get<double>()), ratio("attention"),
                    ratio("recurrent"), model.at("passes").dump(),
                    model.at("tokens_per_s").is_number() ? human_count(model["tokens_per_s"].get<double>()) : kNone});
  }
  return rows;
}

TextTable context_table(const Json& results) {
  TextTable rows{{"Model", "Mode", "Context", "Reading, us/token", "Writing, ms/token", "Cache"}};
  for (const Json& row : results.at("contexts"))
    rows.push_back({text_of(row, "model"), text_of(row, "mode"), row.at("length").dump(),
                    fmt::format("{:.2f}", 1e6 * row.at("prefill_s").get<double>() / row["length"].get<double>()),
                    fmt::format("{:.3f}", 1e3 * row.at("decode_s").get<double>()),
                    human_bytes(row.at("cache_bytes").get<double>())});
  return rows;
}

constexpr std::array kStyles{"attention", "recurrent", "mixed", "other", "muted"};
constexpr std::array kMarkers{Marker::circle, Marker::square, Marker::diamond, Marker::triangle};

report::Point point_of(const Json& row) {
  const Json& error = row.at("accuracy").at("standard_error");
  report::Point point{row.at("attention_fraction"), row["accuracy"].at("mean")};
  if (error.is_number()) point.error = error.get<double>();
  return point;
}

// One chart for each model that was swept; models with one way to read are lines across, hybrids points.
std::string retrieval_charts(const Json& results) {
  std::vector<std::string> swept;
  for (const Json& row : results.at("retrieval"))
    if (row.at("where") != "all" && (swept.empty() || swept.back() != text_of(row, "model")))
      swept.push_back(text_of(row, "model"));
  std::string out;
  for (const std::string& model : swept) {
    LineChart chart;
    chart.title = model + ": retrieval against the fraction of tokens in attention";
    chart.caption = "Accuracy over the retrieval tasks. Bars: standard error over the seeds.";
    chart.x = {"tokens in attention", Unit::percent, false, 0, 1};
    chart.y = {"accuracy", Unit::number, false, 0, 1};
    std::vector<report::Point> ends;  // common to all places
    for (const Json& row : results["retrieval"])
      if (row["model"] == model && row["where"] == "all") ends.push_back(point_of(row));
    for (const Json& row : results["retrieval"]) {
      if (row["model"] != model || row["where"] == "all") continue;
      if (chart.series.empty() || row["where"] != chart.series.back().name) {
        const size_t i = chart.series.size();
        chart.series.push_back({text_of(row, "where"), kStyles[i % kStyles.size()], {}, kMarkers[i % kMarkers.size()]});
        if (row["where"] != "question") chart.series.back().points = ends;
      }
      chart.series.back().points.push_back(point_of(row));
    }
    for (auto& series : chart.series) std::ranges::stable_sort(series.points, {}, &report::Point::x);
    for (const Json& row : results["retrieval"]) {
      if (row["where"] != "all" || std::ranges::find(swept, text_of(row, "model")) != swept.end()) continue;
      const report::Point point = point_of(row);
      if (row["mode"] == "schedule")
        chart.series.push_back({text_of(row, "model"), "other", {point}, Marker::triangle});
      else
        chart.series.push_back({text_of(row, "model"),
                                row["mode"] == "attention" ? "attention" : "recurrent",
                                {{0, point.y}, {1, point.y}},
                                Marker::none,
                                true});
    }
    out += chart.html();
  }
  return out;
}

std::string context_chart(const Json& results, const std::string& title, const std::string& label, Unit unit,
                          const std::function<double(const Json&)>& value) {
  LineChart chart;
  chart.title = title;
  chart.x = {"tokens of context", Unit::count, true};
  chart.y = {label, unit, true};
  for (const Json& row : results.at("contexts")) {
    const std::string name = fmt::format("{}, {}", text_of(row, "model"), text_of(row, "mode"));
    if (chart.series.empty() || chart.series.back().name != name) {
      const size_t i = chart.series.size();
      chart.series.push_back(
          {name, kStyles[i % kStyles.size()], {}, kMarkers[i % kMarkers.size()], i >= kStyles.size()});
    }
    chart.series.back().points.push_back({row.at("length"), value(row)});
  }
  return chart.html();
}

std::string budget(const Json& results) {
  const Json& comparison = results.at("comparison");
  return fmt::format(
      "Scale {}: {} tokens a model, {:.1f} for each parameter outside of the embeddings, {} seed{}. {}, {} threads, "
      "{}.{}",
      text_of(results, "scale"), human_count(comparison.at("tokens").get<double>()),
      results.at("tokens_per_parameter").get<double>(), comparison.at("seeds").size(),
      comparison["seeds"].size() == 1 ? "" : "s", text_of(results.at("machine"), "processor"),
      results["machine"].at("threads").get<int64_t>(), text_of(results["machine"], "device"),
      results.at("finished").get<bool>() ? "" : " Not all is finished.");
}

const char* const kVerdictNote =
    "Verdicts follow from the figures by the rules below. Intervals are 95%, by Student's t over the seeds with the "
    "variance pooled over the rows of a claim. A claim about trained models counts as contradicted only where they saw "
    "20 tokens for each parameter; before that it is not shown at this scale.";
const char* const kLanguageNote =
    "Mean ± standard error over the seeds. Loss: validation, nats per token. Accuracy: averaged over the tasks. To "
    "baseline: the difference to the model that has only this mixer, taken seed by seed. A mode called schedule is a "
    "hybrid whose layers have their mixers fixed, trained as such.";
const char* const kRetrievalNote =
    "The same models with attention at the end (tail), the beginning (head), the question and answer, random chunks of "
    "16, evenly spread tokens (every), or where a policy puts it. A fixed hybrid's fraction is the part of its layers.";
const char* const kContextNote =
    "Of the first seed's models on random tokens, the fastest of three; what a mode never needs again is let go.";

}  // namespace

std::string claims_markdown(const Json& results) {
  return markdown_table(claims_table(results));
}

std::string reproduction_markdown(const Json& results) {
  std::string out =
      "# Reproduction\n\n" + budget(results) + "\n\n" + claims_markdown(results) + "\n" + kVerdictNote + "\n";
  for (const Json& claim : results.at("claims")) {
    out += fmt::format("\n**{}** {}\n\n", text_of(claim, "claim"), text_of(claim, "rule"));
    for (const Json& line : claim.at("evidence")) out += "- " + line.get<std::string>() + "\n";
  }
  const auto section = [&](const char* heading, const std::string& note, const TextTable& table) {
    if (table.size() < 2) return;
    out += fmt::format("\n## {}\n\n", heading) + (note.empty() ? "" : note + "\n\n") + markdown_table(table);
  };
  section("Language modelling", kLanguageNote, language_table(results));
  section("Its tasks", "", task_table(results));
  section("Retrieval", kRetrievalNote, retrieval_table(results));
  section("Models", "Parameters without embeddings.", model_table(results));
  section("Memory and time", kContextNote, context_table(results));
  return out;
}

std::string reproduction_page(const Json& results) {
  std::string body = "<h1>Reproduction</h1>\n<p class=\"lead\">" + escape_html(budget(results)) + "</p>\n";
  body += html_table("The claims", claims_table(results)) + "<p class=\"small\">" + kVerdictNote + "</p>\n";
  for (const Json& claim : results.at("claims")) {
    body += fmt::format("<details><summary>{}</summary>\n<p>{}</p>\n<ul>\n", escape_html(text_of(claim, "claim")),
                        escape_html(text_of(claim, "rule")));
    for (const Json& line : claim.at("evidence")) body += "<li>" + escape_html(line.get<std::string>()) + "</li>\n";
    body += "</ul></details>\n";
  }
  const auto section = [&](const char* id, const char* heading, const std::string& note, const TextTable& table,
                           const std::string& charts) {
    if (table.size() < 2) return;
    body += fmt::format("<h2 id=\"{}\">{}</h2>\n{}", id, heading, charts) + html_table(heading, table) +
            "<p class=\"small\">" + note + "</p>\n";
  };
  section("language", "Language modelling", kLanguageNote, language_table(results), "");
  section("tasks", "Its tasks", "", task_table(results), "");
  section("retrieval", "Retrieval", kRetrievalNote, retrieval_table(results), retrieval_charts(results));
  section("models", "Models", "Parameters without embeddings.", model_table(results), "");
  if (!results.at("contexts").empty())
    section("contexts", "Memory and time", kContextNote, context_table(results),
            context_chart(results, "Memory of a sequence", "bytes", Unit::count, [](const Json& row) {
              return row.at("cache_bytes").get<double>();
            }) + context_chart(results, "Time to write a token", "ms", Unit::number, [](const Json& row) {
              return 1e3 * row.at("decode_s").get<double>();
            }) + context_chart(results, "Time to read a token", "us", Unit::number, [](const Json& row) {
              return 1e6 * row.at("prefill_s").get<double>() / row.at("length").get<double>();
            }));
  body += fmt::format(
      "<footer>Oryx {}. Every number of this page is in <code>reproduction.json</code> beside it, curves of training "
      "in "
      "<code>comparison.html</code>.</footer>\n",
      escape_html(text_of(results, "oryx")));
  return report::html_page("Reproduction", "Claims about multi-mixer models, measured", body);
}

}  // namespace oryx::cli
