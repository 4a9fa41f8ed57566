#include "bench/results.h"

#include <cmath>
#include <initializer_list>

#include "bench/statistics.h"

namespace oryx::bench {
namespace {

Json number_or_null(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

bool same(const Json& a, const Json& b, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (a.at(key) != b.at(key)) return false;
  return true;
}

// The row of `op` that is like `row` otherwise.
const Json* find(const Json& rows, const std::string& op, const Json& row, std::initializer_list<const char*> keys) {
  for (const Json& other : rows)
    if (other.at("op") == op && same(other, row, keys)) return &other;
  return nullptr;
}

Json with_keys(const Json& row, std::initializer_list<const char*> keys) {
  Json out;
  for (const char* key : keys) out[key] = row.at(key);
  return out;
}

}  // namespace

double Row::ms() const {
  return median(seconds) * 1e3;
}

Json row_json(const Row& row, double flops_ceiling, double bytes_ceiling) {
  const double seconds = row.ms() / 1e3;
  const double work = row.bound == Bound::flops ? row.flops : row.bytes;
  const double ceiling = row.bound == Bound::flops ? flops_ceiling : bytes_ceiling;
  Json out{{"op", row.op},       {"pass", row.pass}, {"dtype", row.dtype}, {"T", row.T},
           {"heads", row.heads}, {"dim", row.dim},   {"batch", row.batch}, {"ms", row.ms()}};
  out["gflops"] = row.flops > 0 ? Json(row.flops / seconds / 1e9) : Json();
  out["gb_per_s"] = row.bytes > 0 ? Json(row.bytes / seconds / 1e9) : Json();
  out["fraction_of_ceiling"] = number_or_null(work / seconds / ceiling);
  out["bound"] = row.bound == Bound::flops ? "flops" : "bytes";
  out["tokens_per_s"] = static_cast<double>(row.tokens) / seconds;
  out["peak_bytes"] = row.peak_bytes ? Json(*row.peak_bytes) : Json();
  out["spread"] = spread(row.seconds);
  out["samples"] = row.seconds.size();
  out.update(row.extra);
  return out;
}

Json growth(const Json& rows) {
  Json out = Json::array();
  for (const Json& first : rows) {
    const std::initializer_list<const char*> keys{"op", "pass", "dtype", "heads", "dim", "batch"};
    std::vector<double> T, ms, bytes;
    bool before = false;
    for (const Json& row : rows) {
      if (!same(row, first, keys)) continue;
      if (T.empty()) before = &row != &first;
      T.push_back(row.at("T")), ms.push_back(row.at("ms"));
      bytes.push_back(row.at("peak_bytes").is_null() ? 0 : row.at("peak_bytes").get<double>());
    }
    if (before || T.size() < 2) continue;
    Json line = with_keys(first, {"op", "pass", "dtype", "heads", "dim"});
    line["from"] = first.at("T"), line["to"] = static_cast<int64_t>(T.back());
    line["exponent"] = number_or_null(growth_exponent(T, ms));
    line["memory_exponent"] = number_or_null(growth_exponent(T, bytes));
    line["time_per_token_ratio"] = number_or_null(ms.back() / T.back() / (ms.front() / T.front()));
    out.push_back(line);
  }
  return out;
}

Json mixed(const Json& rows) {
  const std::string prefix = "mixed_";
  Json out = Json::array();
  for (const Json& row : rows) {
    const std::string op = row.at("op");
    if (!op.starts_with(prefix)) continue;
    const std::initializer_list<const char*> keys{"pass", "dtype", "T", "heads", "dim"};
    const Json* attention = find(rows, "attention", row, keys);
    const Json* recurrence = find(rows, op.substr(prefix.size()), row, keys);
    Json line = with_keys(row, {"op", "pass", "dtype", "T", "heads", "dim", "ms"});
    line["attention_ms"] = attention ? attention->at("ms") : Json();
    line["recurrence_ms"] = recurrence ? recurrence->at("ms") : Json();
    line["ratio_to_sum"] = Json();
    if (attention && recurrence) {
      const double sum = attention->at("ms").get<double>() + recurrence->at("ms").get<double>();
      line["ratio_to_sum"] = row.at("ms").get<double>() / sum;
    }
    out.push_back(line);
  }
  return out;
}

void add_library_fraction(Json& rows) {
  for (Json& row : rows) {
    if (!row.at("op").get<std::string>().starts_with("linear_cross_entropy")) continue;
    const Json* linear = find(rows, "linear", row, {"dtype", "T", "dim"});
    row["fraction_of_library"] =
        linear ? Json(row.at("gflops").get<double>() / linear->at("gflops").get<double>()) : Json();
    const Json& peak = row.at("peak_bytes");
    row["peak_of_logits"] = peak.is_null() ? Json() : Json(peak.get<double>() / row.at("logits_bytes").get<double>());
  }
}

}  // namespace oryx::bench
