#include "bench/accuracy.h"

#include <gtest/gtest.h>

#include <set>

#include "base/progress.h"
#include "bench/accuracy_cases.h"

namespace oryx::bench {
namespace {

Json quick(std::vector<std::string> ops, std::vector<std::string> dtypes) {
  Progress::set_quiet(true);
  AccuracyOptions options{.ops = std::move(ops), .dtypes = std::move(dtypes), .quick = true};
  options.complete();
  return bench_accuracy(options);
}

TEST(Accuracy, JudgesOutputsStatesAndGradientsOfEveryOperation) {
  const Json result = quick({}, {});
  std::set<std::string> ops;
  int64_t failed = 0;
  for (const Json& row : result["rows"]) {
    ops.insert(row["op"]);
    const double fast = row["fast"], naive = row["naive"], allowed = row["allowed"];
    EXPECT_TRUE(fast >= 0 && naive >= 0 && allowed > 2 * naive) << row;
    EXPECT_EQ(row["holds"].get<bool>(), fast <= allowed) << row;
    // Gradients that cancel to nothing have errors of the size of what cancelled.
    if (row["largest"] > 1e-3) {
      EXPECT_LT(fast, row["dtype"] == "fp32" ? 2e-5 : 0.3) << row;
    }
    failed += row["holds"] == false;
  }
  EXPECT_EQ(ops, std::set<std::string>(accuracy_op_names().begin(), accuracy_op_names().end()));
  EXPECT_EQ(result["failed"], failed);
}

TEST(Accuracy, NamesWhatItJudges) {
  const Json rows = quick({"ssd"}, {"fp32"})["rows"];
  std::vector<std::string> names;
  for (const Json& row : rows)
    if (row["case"] == rows[0]["case"])
      names.push_back(row["what"].get<std::string>() + " " + row["kind"].get<std::string>());
  EXPECT_EQ(names, (std::vector<std::string>{"o output", "final_state state", "q gradient", "k gradient", "v gradient",
                                             "g gradient", "dt gradient", "initial_state gradient"}));
}

TEST(Accuracy, RepeatsItself) {
  EXPECT_EQ(quick({"rope", "short_conv"}, {"bf16"}), quick({"rope", "short_conv"}, {"bf16"}));
}

// An operation that is off in one element, and one that rounds a little worse than its reference.
TEST(Accuracy, TheRule) {
  const Function exact = [](const std::vector<at::Tensor>& x) { return std::vector{x[0].mul(3)}; };
  const Function off = [](const std::vector<at::Tensor>& x) {
    at::Tensor y = x[0].mul(3);
    y[1] += 1e-3;
    return std::vector{y};
  };
  const std::vector<Input> inputs{{normal({5})}};
  const Trial same = try_out(exact, exact, inputs, at::kFloat), other = try_out(off, exact, inputs, at::kFloat);
  ASSERT_EQ(same.fast.gradients.size(), 1u);
  const auto judged = [](const Trial& t) { return errors(t.fast.outputs[0], t.naive.outputs[0], t.exact.outputs[0]); };
  EXPECT_LE(judged(same).fast, judged(same).allowed(rounding_floor(at::kFloat)));
  EXPECT_EQ(judged(same).fast, judged(same).naive);
  EXPECT_GT(judged(other).fast, judged(other).allowed(rounding_floor(at::kFloat)));
}

TEST(AccuracyReport, OneLineForEachCaseAndType) {
  const auto row = [](const char* dtype, const char* what, const char* kind, double fast, bool holds) {
    return Json{{"op", "ssd"},    {"case", "T 3"}, {"dtype", dtype}, {"what", what},    {"kind", kind},
                {"largest", 1.0}, {"fast", fast},  {"naive", 1e-7},  {"allowed", 4e-6}, {"holds", holds}};
  };
  const Json result{{"isa", "avx2"},
                    {"failed", 1},
                    {"rows",
                     {row("fp32", "o", "output", 2e-7, true), row("fp32", "q", "gradient", 1e-7, true),
                      row("fp32", "k", "gradient", 3e-6, true), row("bf16", "o", "output", 8e-6, false)}}};
  const std::string text = accuracy_report(result);
  EXPECT_NE(text.find("| ssd | T 3 | fp32 | 2.0e-07 / 1.0e-07 |  | k 3.0e-06 / 1.0e-07 | 0.75 |\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("| ssd | T 3 | bf16 | 8.0e-06 / 1.0e-07 |  |  | 2.00 does not hold |\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("holds for 3 of 4"), std::string::npos) << text;
}

}  // namespace
}  // namespace oryx::bench
