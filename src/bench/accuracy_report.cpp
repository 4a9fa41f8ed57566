#include <fmt/format.h>

#include <algorithm>

#include "bench/accuracy.h"

namespace oryx::bench {
namespace {

double of_allowed(const Json& row) {
  return row.at("fast").get<double>() / row.at("allowed").get<double>();
}

// "fast / naive" of the row of `kind` that comes nearest to what is allowed, or goes farthest beyond it.
std::string worst(const std::vector<Json>& rows, const std::string& kind) {
  const Json* found = nullptr;
  for (const Json& row : rows)
    if (row.at("kind") == kind && (!found || of_allowed(row) > of_allowed(*found))) found = &row;
  if (!found) return "";
  const std::string name = kind == "gradient" ? found->at("what").get<std::string>() + " " : "";
  return fmt::format("{}{:.1e} / {:.1e}", name, found->at("fast").get<double>(), found->at("naive").get<double>());
}

std::string line(const std::vector<Json>& rows) {
  double most = 0;
  bool holds = true;
  for (const Json& row : rows) most = std::max(most, of_allowed(row)), holds = holds && row.at("holds").get<bool>();
  return fmt::format("| {} | {} | {} | {} | {} | {} | {:.2f}{} |\n", rows[0].at("op").get<std::string>(),
                     rows[0].at("case").get<std::string>(), rows[0].at("dtype").get<std::string>(),
                     worst(rows, "output"), worst(rows, "state"), worst(rows, "gradient"), most,
                     holds ? "" : " does not hold");
}

}  // namespace

std::string accuracy_report(const Json& result) {
  std::string out = fmt::format(
      "# Accuracy of the operations ({})\n\n"
      "Each pair is the fast operation's largest error against the reference in float64, then that of the reference\n"
      "computed in the same precision, both as parts of the largest exact value (plus 1e-3). Allowed is twice the "
      "second\n"
      "plus a floor: 4e-6 in fp32, 8e-3 in bf16. Of several outputs or gradients the pair nearest to what is allowed "
      "is\n"
      "shown; the last column is the largest error over what is allowed.\n\n"
      "| op | case | dtype | output | final state | gradient | of allowed |\n|---|---|---|---|---|---|---|\n",
      result["isa"].get<std::string>());
  std::vector<Json> together;
  const auto flush = [&] {
    if (!together.empty()) out += line(together);
    together.clear();
  };
  for (const Json& row : result["rows"]) {
    for (const char* key : {"op", "case", "dtype"})
      if (!together.empty() && together[0].at(key) != row.at(key)) flush();
    together.push_back(row);
  }
  flush();
  const auto failed = result["failed"].get<int64_t>(), all = static_cast<int64_t>(result["rows"].size());
  return out + fmt::format("\nThe rule holds for {} of {} outputs, states and gradients.\n", all - failed, all);
}

}  // namespace oryx::bench
