#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/progress.h"
#include "bench/results.h"

namespace oryx::bench {
namespace {

struct Column {
  std::string title;
  std::function<std::string(const Json&)> cell;
};

// `scale` times the number under `key` in the given format; "" where there is none.
Column number(const char* title, const char* key, const char* format, double scale = 1) {
  return {title, [=](const Json& row) -> std::string {
            const auto value = row.find(key);
            if (value == row.end() || value->is_null()) return "";
            return fmt::format(fmt::runtime(format), value->get<double>() * scale);
          }};
}
Column text(const char* title, const char* key) {
  return {title, [=](const Json& row) { return row.at(key).get<std::string>(); }};
}
Column integer(const char* title, const char* key) {
  return {title, [=](const Json& row) { return fmt::format("{}", row.at(key).get<int64_t>()); }};
}
Column shape() {
  return {"heads", [](const Json& row) {
            return fmt::format("{}x{}", row.at("heads").get<int64_t>(), row.at("dim").get<int64_t>());
          }};
}

std::string table(const std::string& title, const Json& rows, const std::vector<Column>& columns) {
  if (rows.empty()) return "";
  std::string out = "\n## " + title + "\n\n|", rule = "|";
  for (const Column& column : columns) out += " " + column.title + " |", rule += "---|";
  out += "\n" + rule + "\n";
  for (const Json& row : rows) {
    out += '|';
    for (const Column& column : columns) out += " " + column.cell(row) + " |";
    out += '\n';
  }
  return out;
}

std::string ceilings(const Json& result) {
  std::string out = "| ceiling | before | after | how |\n|---|---|---|---|\n";
  const auto line = [&](const char* name, const char* key, const std::string& how) {
    out += fmt::format("| {} | {:.4g} | {:.4g} | {} |\n", name, result["ceilings"][key].get<double>(),
                       result["ceilings_after"][key].get<double>(), how);
  };
  line("fp32, GFLOP/s", "fp32_gflops", result["ceilings"]["fp32_from"]);
  line("bf16, GFLOP/s", "bf16_gflops", result["ceilings"]["bf16_from"]);
  line("memory, GB/s", "read_gb_per_s", result["ceilings"]["read_from"]);
  line("fp32 library, GFLOP/s", "fp32_library_gflops", "LibTorch's matrix product, for comparison");
  line("bf16 library, GFLOP/s", "bf16_library_gflops", "LibTorch's matrix product, for comparison");
  return out;
}

std::string others(const Json& result) {
  const Json& busy = result["others_busy_cores"];
  return busy.is_null() ? "" : fmt::format("\nOther processes kept {:.2f} cores busy meanwhile.\n", busy.get<double>());
}

Json bound_by(const Json& rows, const char* bound) {
  Json out = Json::array();
  for (const Json& row : rows)
    if (row.at("bound") == bound) out.push_back(row);
  return out;
}

}  // namespace

std::string ops_report(const Json& result) {
  std::string out = fmt::format("# Operations on {}, {} threads\n\n", result["device"].get<std::string>(),
                                result["threads"].get<int64_t>());
  out += ceilings(result);
  out += others(result);
  const Column op = text("op", "op"), pass = text("pass", "pass"), dtype = text("dtype", "dtype");
  const Column ms = number("ms", "ms", "{:.4g}"), spread = number("spread", "spread", "{:.0f}%", 100);
  const Column fraction = number("of ceiling", "fraction_of_ceiling", "{:.1f}%", 100);
  const Column rate = number("tokens/s", "tokens_per_s", "{:.4g}"),
               peak = number("peak MB", "peak_bytes", "{:.4g}", 1e-6);
  const Column gflops = number("GFLOP/s", "gflops", "{:.4g}");
  out += table("Bound by arithmetic", bound_by(result["rows"], "flops"),
               {op, pass, dtype, integer("T", "T"), shape(), ms, spread, gflops, fraction, rate, peak,
                number("of library", "fraction_of_library", "{:.1f}%", 100),
                number("peak / logits", "peak_of_logits", "{:.3f}")});
  out += table("Bound by memory", bound_by(result["rows"], "bytes"),
               {op, pass, dtype, integer("T", "T"), shape(), integer("batch", "batch"), ms, spread,
                number("GB/s", "gb_per_s", "{:.4g}"), fraction, rate, peak});
  out += table("Mixed sequences beside both mixers alone", result["mixed"],
               {op, pass, dtype, integer("T", "T"), shape(), ms, number("attention ms", "attention_ms", "{:.4g}"),
                number("recurrence ms", "recurrence_ms", "{:.4g}"), number("of the sum", "ratio_to_sum", "{:.2f}")});
  out += table("Growth with T", result["growth"],
               {op, pass, dtype, shape(), integer("from", "from"), integer("to", "to"),
                number("time ~ T^", "exponent", "{:.2f}"), number("memory ~ T^", "memory_exponent", "{:.2f}"),
                number("time per token, last / first", "time_per_token_ratio", "{:.2f}")});
  out += "\n## Formulas\n\n";
  for (const auto& [name, words] : result["formulas"].items())
    out += fmt::format("- {}: {}\n", name, words.get<std::string>());
  return out;
}

std::string train_report(const Json& result) {
  std::string out = fmt::format("# Training steps on {}, {} threads\n\n", result["device"].get<std::string>(),
                                result["threads"].get<int64_t>());
  out += ceilings(result) + others(result);
  out += table(
      "Steps", result["rows"],
      {text("preset", "preset"), text("precision", "precision"),
       number("in attention", "attention_fraction", "{:.0f}%", 100), integer("T", "T"),
       integer("tokens", "batch_tokens"), number("ms", "ms", "{:.4g}"), number("spread", "spread", "{:.0f}%", 100),
       number("tokens/s", "tokens_per_s", "{:.4g}"), number("GFLOP/s", "gflops", "{:.4g}"),
       number("of ceiling", "fraction_of_ceiling", "{:.1f}%", 100), number("peak MB", "peak_bytes", "{:.4g}", 1e-6)});
  out += "\n" + result["formula"].get<std::string>() + "\n";
  if (!result.contains("trace")) return out;
  constexpr size_t kShown = 30;
  const Json& trace = result["trace"];
  Json longest = Json::array();
  for (size_t i = 0; i < std::min(kShown, trace["rows"].size()); ++i) longest.push_back(trace["rows"][i]);
  const std::string what = trace["by"] == "self" ? "operations, time of their own" : "kernels";
  out += table(fmt::format("One step: {} of {}, {:.4g} ms in all", longest.size(), what, trace["ms"].get<double>()),
               longest,
               {text("name", "name"), integer("calls", "calls"), number("ms", "ms", "{:.4g}"),
                number("share", "share", "{:.1f}%", 100)});
  return out + "\nThe step's trace is in " + trace["file"].get<std::string>() + "; ui.perfetto.dev shows it.\n";
}

}  // namespace oryx::bench
