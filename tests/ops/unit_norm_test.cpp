#include "ops/unit_norm/op.h"

#include "ops/pointwise_testing.h"

namespace oryx::ops {
namespace {
using namespace oryx::ops::testing;

using Op = at::Tensor (*)(const at::Tensor&, double, double, std::string_view);
Function with(Op op, double scale, std::string_view activation) {
  return [=](const std::vector<at::Tensor>& in) { return std::vector{op(in[0], 1e-6, scale, activation)}; };
}

class UnitNorm : public ::testing::TestWithParam<std::tuple<at::ScalarType, const char*>> {};
INSTANTIATE_TEST_SUITE_P(Types, UnitNorm,
                         ::testing::Combine(::testing::Values(at::kDouble, at::kFloat, at::kBFloat16),
                                            ::testing::Values("none", "silu")));

TEST_P(UnitNorm, MatchesReference) {
  const auto [type, activation] = GetParam();
  std::vector<std::vector<int64_t>> shapes{{1, 3}, {65}, {2, 0, 16}, {130, 33}};
  for (int64_t d : kWidths) shapes.push_back({17, 3, d});
  for (const auto& shape : shapes)
    for (Op op : {unit_norm, unit_norm_aten})
      compare(with(op, 0.125, activation), with(unit_norm_reference, 0.125, activation), {{normal(shape)}}, type,
              "d " + std::to_string(shape.back()) + (op == unit_norm ? " kernel" : " aten"));
}

// A row of one element is its sign: the gradient is all cancellation, so that only fp64 can be held to a tolerance.
TEST(UnitNormValues, OneElement) {
  for (Op op : {unit_norm, unit_norm_aten})
    compare(with(op, 1, "silu"), with(unit_norm_reference, 1, "silu"), {{normal({5, 1})}}, at::kDouble, "d 1", 1e-9);
}

TEST_P(UnitNorm, NonContiguous) {
  const auto [type, activation] = GetParam();
  compare(with(unit_norm, 1, activation), with(unit_norm_reference, 1, activation),
          {{normal({4, 24, 9}).transpose(1, 2)}}, type, "strided");
}

TEST(UnitNormValues, LengthIsScale) {
  const at::Tensor y = unit_norm(at::randn({50, 40}), 1e-6, 3);
  EXPECT_LE((y.norm(2, -1) - 3).abs().max().item<double>(), 1e-5);
}

TEST(UnitNormValues, ZeroRowsStayFinite) {
  for (const char* activation : {"none", "silu"}) {
    const at::Tensor x = at::zeros({3, 20}).requires_grad_();
    const at::Tensor y = unit_norm(x, 1e-6, 1, activation);
    EXPECT_EQ(y.abs().max().item<float>(), 0);
    EXPECT_TRUE(at::isfinite(torch::autograd::grad({y.sum()}, {x})[0]).all().item<bool>());
  }
}

TEST(UnitNormErrors, NameTheArgument) {
  const at::Tensor x = at::randn({4, 8});
  expect_error([&] { unit_norm(x.to(at::kInt)); }, "unit_norm: x must be float32");
  expect_error([&] { unit_norm(at::randn({})); }, "unit_norm: x must have shape");
  expect_error([&] { unit_norm(at::randn({3, 0})); }, "unit_norm: x must have shape");
  expect_error([&] { unit_norm(x, -1); }, "unit_norm: eps");
  expect_error([&] { unit_norm(x, 1e-6, 1, "relu"); }, "unit_norm: activation must be \"none\" or \"silu\"");
  const at::Tensor leaf = x.clone().requires_grad_();
  expect_no_double_backward(unit_norm(leaf).sum(), leaf, "unit_norm");
}

}  // namespace
}  // namespace oryx::ops
