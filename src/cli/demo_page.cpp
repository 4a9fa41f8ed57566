#include "cli/demo_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/progress.h"
#include "eval/report/html.h"
#include "eval/report/line_chart.h"

namespace oryx::cli {
namespace {

using report::escape_html;
using report::LineChart;
using report::Marker;
using report::Point;
using report::smoothed;
using report::Table;
using report::Unit;

double number(const Json& object, const char* key) {
  return object.at(key).get<double>();
}
std::string text_of(const Json& object, const char* key) {
  return object.at(key).get<std::string>();
}
int64_t whole(const Json& object, const char* key) {
  return object.at(key).get<int64_t>();
}
std::string count(const Json& object, const char* key) {
  return human_count(number(object, key));
}
std::string percent(double fraction) {
  return fmt::format("{:.1f}%", 100 * fraction);
}

// A sequence as a bar, each span in the colour of its mixer.
std::string strip(const Json& spans) {
  const auto length = static_cast<double>(whole(spans.back(), "end"));
  std::string bars;
  for (const Json& s : spans)
    bars += fmt::format("<rect class=\"{}\" x=\"{:.2f}\" width=\"{:.2f}\" height=\"10\"/>",
                        escape_html(text_of(s, "mixer")), 100 * number(s, "begin") / length,
                        100 * (number(s, "end") - number(s, "begin")) / length);
  return "<svg class=\"strip\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">" + bars +
         "</svg>";
}

LineChart loss_chart(const std::string& title, const std::string& caption, const Json& training) {
  LineChart chart;
  chart.title = title;
  chart.caption = caption;
  chart.x = {"tokens seen", Unit::count, false, 0, number(training, "tokens")};
  chart.y = {"loss, nats per predicted token", Unit::number};
  std::vector<Point> points;
  for (const Json& p : training.at("loss")) points.push_back({number(p, "tokens"), number(p, "loss")});
  const auto validation = [&](const char* mode) {
    std::vector<Point> out;
    for (const Json& p : training.at("validation"))
      if (p.contains(mode)) out.push_back({number(p, "tokens"), number(p, mode)});
    return out;
  };
  chart.series = {{"training, each step", "muted", points},
                  {"training, mean", "mixed", smoothed(points)},
                  {"validation in attention", "attention", validation("attention"), Marker::circle},
                  {"validation, recurrent", "recurrent", validation("recurrent"), Marker::square, true}};
  return chart;
}

struct Fact {
  std::string name, value, note;
};

std::string facts(const std::vector<Fact>& entries) {
  std::string out = "<dl class=\"facts\">\n";
  for (const auto& [name, value, note] : entries)
    out += fmt::format("<div><dt>{}</dt><dd>{} <small>{}</small></dd></div>\n", escape_html(name), escape_html(value),
                       escape_html(note));
  return out + "</dl>\n";
}

std::string mixer_legend() {
  return "<p class=\"swatches\"><span><span class=\"by recurrent\">recurrent</span></span> "
         "<span><span class=\"by attention\">attention</span></span></p>\n";
}

std::string recall_table(const Json& recall) {
  Table table(
      fmt::format("Accuracy by schedule, sequences of {} tokens", whole(recall.at("task"), "length")),
      {{"Schedule", Table::Align::left}, {"Tokens", Table::Align::left}, {"In attention"}, {"Accuracy"}, {"Queries"}});
  for (const Json& row : recall.at("schedules"))
    table.add_row({Table::markup(fmt::format("{}<br><code class=\"soft\">{}</code>", escape_html(text_of(row, "name")),
                                             escape_html(text_of(row, "schedule")))),
                   Table::markup(strip(row.at("spans"))), Table::text(percent(number(row, "attention_fraction"))),
                   Table::markup(fmt::format("<strong>{:.3f}</strong>", number(row, "accuracy"))),
                   Table::text(fmt::format("{}", whole(row, "queries")))});
  return table.html();
}

// 95% interval of a proportion, by the normal approximation.
double half_width(double p, double n) {
  return 1.96 * std::sqrt(p * (1 - p) / std::max(n, 1.0));
}

std::vector<Point> curve_points(const Json& curve) {
  std::vector<Point> points;
  for (const Json& p : curve.at("points")) {
    const double accuracy = number(p, "accuracy");
    points.push_back({number(p, "attention_fraction"), accuracy, half_width(accuracy, number(p, "queries"))});
  }
  std::ranges::stable_sort(points, {}, &Point::x);
  return points;
}

LineChart fraction_chart(const std::string& title, const std::string& caption) {
  LineChart chart;
  chart.title = title;
  chart.caption = caption + " Bars: 95% interval of the accuracy.";
  chart.x = {"tokens in attention", Unit::percent, false, 0, 1};
  chart.y = {"accuracy", Unit::number, false, 0, 1};
  return chart;
}

LineChart length_chart(const Json& recall) {
  const int64_t trained = whole(recall.at("task"), "length"), pairs = whole(recall.at("task"), "pairs");
  LineChart chart = fraction_chart(
      "Accuracy against attention fraction, on longer and longer contexts",
      fmt::format(
          "{0} pairs at the start, {0} queries at the end, random tokens between them, which contain keys too. The "
          "recurrence reads the first part of the sequence, attention the last.",
          pairs));
  constexpr std::array<std::pair<const char*, Marker>, 4> kLooks{{{"mixed", Marker::triangle},
                                                                  {"other", Marker::square},
                                                                  {"attention", Marker::circle},
                                                                  {"recurrent", Marker::diamond}}};
  for (const Json& curve : recall.at("curves")) {
    if (curve.at("attention_at") != "end") continue;
    const int64_t length = whole(curve, "length");
    const auto& [style, marker] = kLooks[chart.series.size() % kLooks.size()];
    chart.series.push_back({fmt::format("{} tokens{}", length, length == trained ? ", as trained" : ""), style,
                            curve_points(curve), marker});
  }
  return chart;
}

LineChart place_chart(const Json& recall) {
  const int64_t trained = whole(recall.at("task"), "length");
  LineChart chart = fraction_chart(fmt::format("Where attention helps, {} tokens", trained),
                                   "The same share of the tokens in attention, in three places.");
  for (const Json& curve : recall.at("curves")) {
    if (whole(curve, "length") != trained) continue;
    const std::string place = text_of(curve, "attention_at");
    if (place == "end")
      chart.series.push_back({"at the end", "attention", curve_points(curve), Marker::circle});
    else if (place == "start")
      chart.series.push_back({"at the start", "other", curve_points(curve), Marker::square, true});
    else
      chart.series.push_back({"spread in chunks of 16", "mixed", curve_points(curve), Marker::triangle});
  }
  return chart;
}

std::string perplexity_table(const Json& text) {
  Table table(fmt::format("Validation text, {} tokens in windows of {}", count(text.at("perplexity").front(), "tokens"),
                          whole(text, "context")),
              {{"Schedule", Table::Align::left},
               {"Window", Table::Align::left},
               {"In attention"},
               {"Perplexity"},
               {"Nats per token"},
               {"Bits per byte"}});
  for (const Json& row : text.at("perplexity"))
    table.add_row({Table::markup(fmt::format("{}<br><code class=\"soft\">{}</code>", escape_html(text_of(row, "name")),
                                             escape_html(text_of(row, "schedule")))),
                   Table::markup(strip(row.at("spans"))), Table::text(percent(number(row, "attention_fraction"))),
                   Table::markup(fmt::format("<strong>{:.2f}</strong>", number(row, "perplexity"))),
                   Table::text(fmt::format("{:.3f}", number(row, "nats_per_token"))),
                   Table::text(fmt::format("{:.3f}", number(row, "bits_per_byte")))});
  return table.html();
}

std::string sample_block(const Json& sample) {
  std::string out = "<div class=\"sample\">" + escape_html(text_of(sample, "prompt"));
  for (const Json& piece : sample.at("pieces")) {
    const std::string mixer = escape_html(text_of(piece, "mixer"));
    const int64_t tokens = whole(piece, "tokens");
    out += fmt::format("<span class=\"by {0}\" title=\"{0}, {1} token{2}\">{3}</span>", mixer, tokens,
                       tokens == 1 ? "" : "s", escape_html(text_of(piece, "text")));
  }
  return out + "</div>\n";
}

std::string training_table(const Json& results) {
  Table table("Training",
              {{"Model", Table::Align::left}, {"Parameters"}, {"Steps"}, {"Tokens"}, {"Time"}, {"Tokens per second"}});
  for (const auto& [name, key] : {std::pair{"Associative recall", "recall"}, std::pair{"English text", "text"}}) {
    const Json& model = results.at(key);
    const Json& t = model.at("training");
    table.add_row({Table::text(name), Table::text(count(model, "parameters")),
                   Table::text(fmt::format("{}", whole(t, "steps"))), Table::text(count(t, "tokens")),
                   Table::text(human_duration(number(t, "seconds"))), Table::text(count(t, "tokens_per_s"))});
  }
  return table.html();
}

std::string recall_section(const Json& recall) {
  const Json& task = recall.at("task");
  std::string out = fmt::format(
      "<h2 id=\"recall\">Associative recall</h2>\n"
      "<p>A sequence lists {0} keys with their values; then each key comes again, and the model has to name its value. "
      "The "
      "keys and values change with every sequence, so all of it must be read from the context. The {1} parameters were "
      "trained with chunks of {2} tokens given to attention or to the recurrence at random.</p>\n",
      whole(task, "pairs"), count(recall, "parameters"), whole(recall, "mixing_chunk"));
  out += mixer_legend() + recall_table(recall);
  out +=
      "<p>A recurrence has to keep all pairs in a state of fixed size; attention looks them up. If the keys and values "
      "that "
      "the two read are the same, attention can answer from a context that the recurrence has read, and the third row "
      "tells "
      "whether it can.</p>\n";
  out += length_chart(recall).html() + place_chart(recall).html();
  return out +
         loss_chart("Learning to recall",
                    "Only queries are predicted. Validation is on sequences of their own, with one mixer throughout.",
                    recall.at("training"))
             .html();
}

std::string text_section(const Json& text) {
  const Json& sample = text.at("sample");
  std::string out = fmt::format(
      "<h2 id=\"text\">English text</h2>\n"
      "<p>The same kind of model with {} parameters and a vocabulary of {} pieces, trained on twelve novels and "
      "measured on one that it has not seen.</p>\n",
      count(text, "parameters"), whole(text.at("config"), "vocab_size"));
  out += perplexity_table(text);
  out += loss_chart("Learning English", "Validation is on the start of the validation text, with one mixer throughout.",
                    text.at("training"))
             .html();
  out += fmt::format(
      "<h3>A sample, and who wrote what</h3>\n<p>Written by the model that comes with Oryx ({} parameters, "
      "<code>models/oryx-gdn-31m</code>). The mixers take turns by 16 tokens (<code>{}</code>, temperature {}). "
      "Each continues from the keys, values and state that the other left.</p>\n",
      count(sample, "parameters"), escape_html(text_of(sample, "schedule")), number(sample, "temperature"));
  return out + mixer_legend() + sample_block(sample);
}

// A word as a POSIX shell reads it.
std::string quoted(const std::string& word) {
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

std::string commands(const Json& recall, const Json& text) {
  const Json& sample = text.at("sample");
  int64_t tokens = 0;
  for (const Json& piece : sample.at("pieces")) tokens += whole(piece, "tokens");
  const std::string lines = fmt::format(
      "oryx eval recall {0} --schedule {1} --examples {2}\n"
      "oryx eval perplexity {3} data/books/valid.txt.zst --schedule {4}\n"
      "oryx generate {10} --schedule {5} --temperature {6} --seed {7} \\\n    --prompt {8} --max-tokens {9}\n",
      text_of(recall, "model"), text_of(recall.at("schedules").at(2), "schedule"),
      whole(recall.at("schedules").at(2), "examples"), text_of(text, "model"),
      text_of(text.at("perplexity").at(2), "schedule"), text_of(sample, "schedule"), number(sample, "temperature"),
      whole(sample, "seed"), quoted(text_of(sample, "prompt")), tokens, text_of(sample, "model"));
  return "<h3>Measure it yourself</h3>\n<pre>" + escape_html(lines) + "</pre>\n";
}

}  // namespace

std::string demo_page(const Json& results) {
  const Json& recall = results.at("recall");
  const Json& text = results.at("text");
  const Json& machine = results.at("machine");
  const auto recall_row = [&](size_t i) {
    return fmt::format("{:.3f}", number(recall.at("schedules").at(i), "accuracy"));
  };
  std::string body =
      "<h1>One model, two ways to read</h1>\n"
      "<p class=\"lead\">Oryx trains language models whose weights serve both softmax attention and a linear "
      "recurrence, "
      "and that may change between the two at any token. This page shows two small ones, trained from nothing by "
      "<code>oryx demo</code>.</p>\n";
  if (results.at("quick").get<bool>())
    body +=
        "<p><strong>This was a quick run:</strong> every part ran, on budgets far too small to learn anything.</p>\n";
  body += facts(
      {{"Recall, all in attention", recall_row(0), "accuracy"},
       {"Recall, all recurrent", recall_row(1), "accuracy"},
       {"Recall, only queries in attention", recall_row(2), "accuracy"},
       {"English, attention", fmt::format("{:.1f}", number(text.at("perplexity").at(0), "perplexity")), "perplexity"},
       {"English, recurrent", fmt::format("{:.1f}", number(text.at("perplexity").at(1), "perplexity")), "perplexity"},
       {"English, in turn", fmt::format("{:.1f}", number(text.at("perplexity").at(2), "perplexity")), "perplexity"}});
  body += recall_section(recall) + text_section(text);
  body += "<h2 id=\"how\">How it was made</h2>\n" + training_table(results);
  body += fmt::format(
      "<p class=\"small\">Times are those of training steps, measured on {}{} core{}, {} thread{}.</p>\n",
      machine.at("processor").get<std::string>().empty() ? "" : escape_html(text_of(machine, "processor")) + ", ",
      whole(machine, "cores"), whole(machine, "cores") == 1 ? "" : "s", whole(machine, "threads"),
      whole(machine, "threads") == 1 ? "" : "s");
  body += commands(recall, text);
  body +=
      fmt::format("<footer>Oryx {}. Every number of this page is in <code>results.json</code> beside it.</footer>\n",
                  escape_html(text_of(results, "oryx")));
  return report::html_page("Oryx demonstration", "Two small multi-mixer models: recall and English text", body);
}

}  // namespace oryx::cli
