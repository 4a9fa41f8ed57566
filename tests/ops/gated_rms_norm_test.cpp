#include "ops/gated_rms_norm/op.h"

#include <limits>

#include "ops/pointwise_testing.h"

namespace oryx::ops {
namespace {
using namespace oryx::ops::testing;

using Op = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, double);
Function with(Op op) {
  return [=](const std::vector<at::Tensor>& in) { return std::vector{op(in[0], in[1], in[2], 1e-5)}; };
}

std::vector<Input> inputs(int64_t n, int64_t h, int64_t d) {
  return {{normal({n, h, d})}, {normal({n, h, d}) * 2}, {normal({d})}};
}

class GatedRmsNorm : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, GatedRmsNorm, ::testing::Values(at::kDouble, at::kFloat, at::kBFloat16));

TEST_P(GatedRmsNorm, MatchesReference) {
  for (Op op : {gated_rms_norm, gated_rms_norm_aten}) {
    for (int64_t d : kWidths)
      for (int64_t h : {1, 2, 4})
        compare(with(op), with(gated_rms_norm_reference), inputs(17, h, d), GetParam(), "Vd " + std::to_string(d));
    for (int64_t n : {0, 1, 15, 16, 63, 64, 65, 130})
      compare(with(op), with(gated_rms_norm_reference), inputs(n, 2, 33), GetParam(), "N " + std::to_string(n));
    // More rows than one block of the weight gradient's sum.
    compare(with(op), with(gated_rms_norm_reference), inputs(40, 40, 96), GetParam(), "blocks");
  }
}

TEST_P(GatedRmsNorm, GradientOfOneInput) {
  for (size_t one = 0; one < 3; ++one) {
    auto in = inputs(9, 2, 24);
    for (size_t i = 0; i < 3; ++i) in[i].grad = i == one;
    compare(with(gated_rms_norm), with(gated_rms_norm_reference), in, GetParam(), "only " + std::to_string(one));
  }
}

TEST_P(GatedRmsNorm, NonContiguous) {
  compare(
      with(gated_rms_norm), with(gated_rms_norm_reference),
      {{normal({3, 9, 40}).transpose(0, 1)}, {normal({9, 3, 80}).narrow(2, 40, 40)}, {normal({40, 2}).select(1, 1)}},
      GetParam(), "strided");
}

// Where exp leaves the range of a float, and just before; NaN stays NaN, in its own place.
TEST_P(GatedRmsNorm, ExtremeGates) {
  const at::Tensor some = at::tensor({-1e30, -1000.0, -104.0, -90.0, -88.7, -87.4, -87.0, -60.0, -9.0, -1e-20, 0.0,
                                      1e-20, 9.0, 60.0, 87.0, 88.0, 90.0, 1000.0, 1e30},
                                     at::kDouble);
  const at::Tensor x = normal({2, 1, 95}).to(GetParam()), w = at::ones({95}, GetParam());
  at::Tensor gate = some.repeat({2, 1, 5}).to(GetParam());
  const at::Tensor y = gated_rms_norm(x, gate, w, 1e-5).to(at::kDouble);
  const at::Tensor exact = gated_rms_norm_reference(x.to(at::kDouble), gate.to(at::kDouble), w.to(at::kDouble), 1e-5);
  const double tolerance = GetParam() == at::kBFloat16 ? 1.0 / 256 : 2e-5;
  EXPECT_TRUE((y - exact).abs().le(exact.abs() * tolerance + 1e-30).all().item<bool>());
  gate[1][0][40] = std::numeric_limits<double>::quiet_NaN();
  const at::Tensor nan = at::isnan(gated_rms_norm(x, gate, w, 1e-5));
  EXPECT_EQ(nan.sum().item<int64_t>(), 1);
  EXPECT_TRUE(nan[1][0][40].item<bool>());
}

TEST(GatedRmsNormWeights, Float32BesideBfloat16) {
  auto in = inputs(17, 2, 40);
  in[2].accumulate = true;
  for (Op op : {gated_rms_norm, gated_rms_norm_aten})
    compare(with(op), with(gated_rms_norm_reference), in, at::kBFloat16, "float32 weight");
}

TEST(GatedRmsNormWeights, GradientDoesNotDependOnThreads) {
  const at::Tensor x = at::randn({3000, 4, 33}), gate = at::randn({3000, 4, 33});
  const at::Tensor weight = at::randn({33}).requires_grad_();
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> results;
  for (int n : {1, 2, 1, 2}) {
    at::set_num_threads(n);
    const at::Tensor y = gated_rms_norm(x, gate, weight, 1e-5);
    results.push_back(torch::autograd::grad({y.square().sum()}, {weight})[0]);
  }
  at::set_num_threads(threads);
  for (const auto& result : results) EXPECT_TRUE(at::equal(result, results[0]));
}

TEST(GatedRmsNormErrors, NameTheArgument) {
  const at::Tensor x = at::randn({4, 2, 8}), w = at::ones({8});
  expect_error([&] { gated_rms_norm(x.to(at::kHalf), x, w, 1e-5); }, "gated_rms_norm: x must be float32");
  expect_error([&] { gated_rms_norm(x[0], x[0], w, 1e-5); }, "gated_rms_norm: x must have shape [N, H, Vd]");
  expect_error([&] { gated_rms_norm(x, x.to(at::kDouble), w, 1e-5); }, "gated_rms_norm: gate must be Float");
  expect_error(
      [&] {
        gated_rms_norm(x, at::randn({4, 1, 8}), w, 1e-5);
      },
      "gated_rms_norm: gate must have shape [4, 2, 8]");
  expect_error([&] { gated_rms_norm(x, x, at::ones({2}), 1e-5); }, "gated_rms_norm: weight must have shape [8]");
  expect_error([&] { gated_rms_norm(x, x, w.to(at::kBFloat16), 1e-5); }, "gated_rms_norm: weight must be Float");
  expect_error([&] { gated_rms_norm(x, x, w, -1e-5); }, "gated_rms_norm: eps");
  const at::Tensor leaf = x.clone().requires_grad_();
  expect_no_double_backward(gated_rms_norm(leaf, x, w, 1e-5).sum(), leaf, "gated_rms_norm");
}

}  // namespace
}  // namespace oryx::ops
