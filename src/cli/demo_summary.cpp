#include "cli/demo_page.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/progress.h"

namespace oryx::cli {
namespace {

std::string training_line(const Json& t) {
  return fmt::format("  trained on {} tokens in {}, {} tokens/s\n", human_count(t.at("tokens").get<double>()),
                     human_duration(t.at("seconds").get<double>()), human_count(t.at("tokens_per_s").get<double>()));
}

int64_t longest(const Json& recall) {
  int64_t length = 0;
  for (const Json& curve : recall.at("curves")) length = std::max(length, curve.at("length").get<int64_t>());
  return length;
}

}  // namespace

std::string recall_summary(const Json& recall) {
  const Json& task = recall.at("task");
  std::string out = fmt::format("\nAssociative recall: {} pairs in {} tokens, a model of {} parameters\n",
                                task.at("pairs").get<int64_t>(), task.at("length").get<int64_t>(),
                                human_count(recall.at("parameters").get<double>()));
  out += training_line(recall.at("training")) + "\n";
  out += fmt::format("  {:<42} {:>9} {:>9}\n", "schedule", "attention", "accuracy");
  for (const Json& row : recall.at("schedules"))
    out += fmt::format("  {:<42} {:>8.1f}% {:>9.3f}\n", row.at("name").get<std::string>(),
                       100 * row.at("attention_fraction").get<double>(), row.at("accuracy").get<double>());
  for (const Json& curve : recall.at("curves")) {
    const auto length = curve.at("length").get<int64_t>();
    if (curve.at("attention_at") != "end" || length != longest(recall)) continue;
    out += fmt::format("\n  On {} tokens, {} times the length it was trained on, attention at the end:\n", length,
                       length / task.at("length").get<int64_t>());
    for (const Json& point : curve.at("points"))
      out += fmt::format("  {:<42} {:>8.1f}% {:>9.3f}\n", point.at("schedule").get<std::string>(),
                         100 * point.at("attention_fraction").get<double>(), point.at("accuracy").get<double>());
  }
  return out;
}

std::string text_summary(const Json& text, bool color) {
  std::string out = fmt::format("\nEnglish text: windows of {} tokens, a model of {} parameters\n",
                                text.at("context").get<int64_t>(), human_count(text.at("parameters").get<double>()));
  out += training_line(text.at("training")) + "\n";
  out += fmt::format("  {:<42} {:>9} {:>10} {:>10}\n", "schedule", "attention", "perplexity", "bits/byte");
  for (const Json& row : text.at("perplexity"))
    out += fmt::format("  {:<42} {:>8.1f}% {:>10.2f} {:>10.3f}\n", row.at("name").get<std::string>(),
                       100 * row.at("attention_fraction").get<double>(), row.at("perplexity").get<double>(),
                       row.at("bits_per_byte").get<double>());
  const Json& sample = text.at("sample");
  const auto mark = [&](const std::string& mixer, const std::string& piece) {
    const bool attention = mixer == "attention";
    if (color) return fmt::format("\x1b[{}m{}\x1b[0m", attention ? "33" : "36", piece);
    return attention ? "[" + piece + "]" : "{" + piece + "}";
  };
  out += fmt::format("\nA sample of the model that comes with Oryx ({} parameters), {} and {} in turn:\n\n",
                     human_count(sample.at("parameters").get<double>()), mark("recurrent", "recurrent"),
                     mark("attention", "attention"));
  out += sample.at("prompt").get<std::string>();
  for (const Json& piece : sample.at("pieces"))
    out += mark(piece.at("mixer").get<std::string>(), piece.at("text").get<std::string>());
  return out + "\n";
}

}  // namespace oryx::cli
