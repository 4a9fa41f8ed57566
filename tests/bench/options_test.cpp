#include "bench/options.h"

#include "expect_error.h"

namespace oryx::bench {
namespace {

TEST(OpsOptions, DefaultsAreTheFullSet) {
  OpsOptions options;
  options.complete();
  EXPECT_EQ(options.ops, op_names());
  EXPECT_EQ(options.lengths, (std::vector<int64_t>{512, 2048, 8192, 32768}));
  EXPECT_EQ(options.dims, (std::vector<int64_t>{64, 128}));
  EXPECT_EQ(options.heads, 8);
  EXPECT_TRUE(options.has_dtype("bf16"));
  EXPECT_TRUE(options.has_pass(kTraining));
}

TEST(OpsOptions, SizesAreSortedAndUnique) {
  OpsOptions options;
  options.lengths = {2048, 512, 2048};
  options.complete();
  EXPECT_EQ(options.lengths, (std::vector<int64_t>{512, 2048}));
}

TEST(OpsOptions, BadInput) {
  const auto message = [](auto&& change) {
    return input_error_of([&] {
      OpsOptions options;
      change(options);
      options.complete();
    });
  };
  EXPECT_NE(message([](OpsOptions& o) { o.ops = {"atention"}; }).find("did you mean 'attention'"), std::string::npos);
  EXPECT_NE(message([](OpsOptions& o) { o.ops = {"frob"}; }).find("ssd_step"), std::string::npos);
  EXPECT_NE(message([](OpsOptions& o) { o.dtypes = {"fp64"}; }).find("fp32, bf16"), std::string::npos);
  EXPECT_NE(message([](OpsOptions& o) { o.passes = {"backward"}; }).find("forward+backward"), std::string::npos);
  EXPECT_NE(message([](OpsOptions& o) { o.lengths = {0}; }).find("--lengths: 0"), std::string::npos);
  EXPECT_NE(message([](OpsOptions& o) { o.dims = {7}; }).find("odd"), std::string::npos);
  EXPECT_NE(message([](OpsOptions& o) { o.heads = 1 << 20; }).find("--heads"), std::string::npos);
  EXPECT_NE(message([](OpsOptions& o) { o.budget_s = -1; }).find("--budget"), std::string::npos);
}

}  // namespace
}  // namespace oryx::bench
