#include "bench/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace oryx::bench {
namespace {

bool contains(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

void complete_names(const char* option, std::vector<std::string>& given, const std::vector<std::string>& known) {
  for (const std::string& name : given)
    require(contains(known, name), "{}: unknown name '{}'{}; known are {}", option, excerpt(name, 40),
            did_you_mean(name, known), fmt::join(known, ", "));
  if (given.empty()) given = known;
}

void complete_sizes(const char* option, std::vector<int64_t>& given, const std::vector<int64_t>& usual, int64_t limit) {
  if (given.empty()) given = usual;
  for (const int64_t size : given)
    require(size >= 1 && size <= limit, "{}: {} is not between 1 and {}", option, size, limit);
  std::sort(given.begin(), given.end());
  given.erase(std::unique(given.begin(), given.end()), given.end());
}

}  // namespace

const std::vector<std::string>& op_names() {
  static const std::vector<std::string> names{"attention",
                                              "gated_delta_rule",
                                              "ssd",
                                              "mixed_gated_delta_rule",
                                              "mixed_ssd",
                                              "gated_delta_rule_step",
                                              "ssd_step",
                                              "attention_step",
                                              "short_conv",
                                              "rope",
                                              "gated_rms_norm",
                                              "linear_cross_entropy"};
  return names;
}

const std::vector<std::string>& accuracy_op_names() {
  static const std::vector<std::string> names{"attention", "gated_delta_rule", "ssd",      "short_conv",
                                              "rope",      "gated_rms_norm",   "rms_norm", "linear_cross_entropy"};
  return names;
}

void AccuracyOptions::complete() {
  complete_names("--ops", ops, accuracy_op_names());
  complete_names("--dtypes", dtypes, {"fp32", "bf16"});
}

void OpsOptions::complete() {
  complete_names("--ops", ops, op_names());
  complete_names("--dtypes", dtypes, {"fp32", "bf16"});
  complete_names("--passes", passes, {kForward, kTraining});
  using Sizes = std::vector<int64_t>;
  complete_sizes("--lengths", lengths, quick ? Sizes{64, 128} : Sizes{512, 2048, 8192, 32768}, 1 << 24);
  complete_sizes("--dims", dims, quick ? Sizes{32} : Sizes{64, 128}, 4096);
  for (const int64_t dim : dims)
    require(dim % 2 == 0, "--dims: {} is odd, and rope rotates pairs; give even ones", dim);
  if (heads == 0) heads = quick ? 2 : 8;
  require(heads >= 1 && heads <= 1024, "--heads: {} is not between 1 and 1024", heads);
  require(budget_s >= 0, "--budget: {} is not a time in seconds", budget_s);
}

bool OpsOptions::has_op(const std::string& name) const {
  return contains(ops, name);
}
bool OpsOptions::has_dtype(const std::string& name) const {
  return contains(dtypes, name);
}
bool OpsOptions::has_pass(const std::string& name) const {
  return contains(passes, name);
}

}  // namespace oryx::bench
