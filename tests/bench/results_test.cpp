#include "bench/results.h"

#include <gtest/gtest.h>

namespace oryx::bench {
namespace {

Row row(const std::string& op, int64_t T, double seconds) {
  Row out{.op = op, .pass = "forward", .dtype = "fp32", .T = T, .heads = 8, .dim = 64, .tokens = T};
  out.flops = 1e9, out.seconds = {seconds, seconds * 1.1, seconds * 0.9}, out.peak_bytes = 1000 * T;
  return out;
}

TEST(Results, RowBoundByFlops) {
  const Json json = row_json(row("ssd", 512, 0.01), 400e9, 50e9);
  EXPECT_DOUBLE_EQ(json["ms"], 10);
  EXPECT_DOUBLE_EQ(json["gflops"], 100);
  EXPECT_DOUBLE_EQ(json["fraction_of_ceiling"], 0.25);
  EXPECT_DOUBLE_EQ(json["tokens_per_s"], 51200);
  EXPECT_EQ(json["peak_bytes"], 512000);
  EXPECT_NEAR(json["spread"], 0.2, 1e-12);
  EXPECT_TRUE(json["gb_per_s"].is_null());
}

TEST(Results, RowBoundByBytes) {
  Row r = row("rope", 512, 0.01);
  r.bound = Bound::bytes, r.bytes = 1e8, r.flops = 0, r.peak_bytes.reset();
  const Json json = row_json(r, 400e9, 50e9);
  EXPECT_DOUBLE_EQ(json["gb_per_s"], 10);
  EXPECT_DOUBLE_EQ(json["fraction_of_ceiling"], 0.2);
  EXPECT_TRUE(json["gflops"].is_null());
  EXPECT_TRUE(json["peak_bytes"].is_null());
}

Json table(const std::vector<Row>& rows) {
  Json out = Json::array();
  for (const Row& r : rows) out.push_back(row_json(r, 400e9, 50e9));
  return out;
}

TEST(Results, GrowthOfEachOperation) {
  const Json lines = growth(table({row("ssd", 512, 0.01), row("attention", 512, 0.01), row("ssd", 2048, 0.04),
                                   row("attention", 2048, 0.16), row("rope", 2048, 0.1)}));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["op"], "ssd");
  EXPECT_NEAR(lines[0]["exponent"], 1, 1e-12);
  EXPECT_NEAR(lines[0]["memory_exponent"], 1, 1e-12);
  EXPECT_NEAR(lines[0]["time_per_token_ratio"], 1, 1e-12);
  EXPECT_EQ(lines[1]["op"], "attention");
  EXPECT_EQ(lines[1]["from"], 512);
  EXPECT_EQ(lines[1]["to"], 2048);
  EXPECT_NEAR(lines[1]["exponent"], 2, 1e-12);
  EXPECT_NEAR(lines[1]["time_per_token_ratio"], 4, 1e-12);
}

TEST(Results, MixedBesideItsParts) {
  const Json lines = mixed(table({row("attention", 512, 0.03), row("ssd", 512, 0.01), row("mixed_ssd", 512, 0.02),
                                  row("mixed_gated_delta_rule", 512, 0.02)}));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_NEAR(lines[0]["ratio_to_sum"], 0.5, 1e-12);
  EXPECT_TRUE(lines[1]["ratio_to_sum"].is_null());
  EXPECT_TRUE(lines[1]["recurrence_ms"].is_null());
}

TEST(Results, FractionOfTheLibrary) {
  Row loss = row("linear_cross_entropy", 512, 0.02), linear = row("linear", 512, 0.01);
  loss.extra["logits_bytes"] = 4 * 512000;
  Json rows = table({loss, linear});
  add_library_fraction(rows);
  EXPECT_NEAR(rows[0]["fraction_of_library"], 0.5, 1e-12);
  EXPECT_NEAR(rows[0]["peak_of_logits"], 0.25, 1e-12);
  EXPECT_FALSE(rows[1].contains("fraction_of_library"));
}

TEST(Results, ReportHasEveryTable) {
  Json rows = table(
      {row("attention", 512, 0.03), row("attention", 2048, 0.3), row("ssd", 512, 0.01), row("mixed_ssd", 512, 0.02)});
  const Json ceilings{
      {"fp32_gflops", 400.0}, {"bf16_gflops", 400.0}, {"read_gb_per_s", 50.0},        {"fp32_from", "a loop"},
      {"bf16_from", "b"},     {"read_from", "c"},     {"fp32_library_gflops", 200.0}, {"bf16_library_gflops", 300.0}};
  const std::string report = ops_report({{"device", "cpu"},
                                         {"threads", 2},
                                         {"others_busy_cores", nullptr},
                                         {"ceilings", ceilings},
                                         {"ceilings_after", ceilings},
                                         {"formulas", {{"ssd", "words"}}},
                                         {"growth", growth(rows)},
                                         {"mixed", mixed(rows)},
                                         {"rows", rows}});
  for (const char* part :
       {"2 threads", "a loop", "Bound by arithmetic", "| attention | forward | fp32 | 512 | 8x64 | 30 |",
        "Mixed sequences", "| 0.50 |", "Growth with T", "| 1.66 |", "- ssd: words"})
    EXPECT_NE(report.find(part), std::string::npos) << part << "\n" << report;
  EXPECT_EQ(report.find("Bound by memory"), std::string::npos);
}

}  // namespace
}  // namespace oryx::bench
