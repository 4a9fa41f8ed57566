#include "ops/rope/op.h"

#include "ops/pointwise_testing.h"

namespace oryx::ops {
namespace {
using namespace oryx::ops::testing;

using Op = at::Tensor (*)(const at::Tensor&, const at::Tensor&, double);
Function with(Op op, const at::Tensor& positions, double base = 10000) {
  return [=](const std::vector<at::Tensor>& in) { return std::vector{op(in[0], positions, base)}; };
}

class Rope : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, Rope, ::testing::Values(at::kDouble, at::kFloat, at::kBFloat16));

TEST_P(Rope, MatchesReference) {
  for (Op op : {rope, rope_aten}) {
    for (int64_t dim : {2, 6, 8, 16, 24, 40, 64, 80, 128, 256})
      for (int64_t h : {1, 2, 4})
        for (double base : {10000.0, 500000.0, 1.0})
          compare(with(op, at::arange(17) + 5, base), with(rope_reference, at::arange(17) + 5, base),
                  {{normal({17, h, dim})}}, GetParam(), "Kd " + std::to_string(dim));
    for (int64_t n : {0, 1, 15, 16, 63, 64, 65, 130})
      compare(with(op, at::arange(n)), with(rope_reference, at::arange(n)), {{normal({n, 2, 34})}}, GetParam(),
              "N " + std::to_string(n));
  }
}

// Rounding to bfloat16 at ties, at the largest number, and of NaN: the rotation by nothing keeps every value.
TEST_P(Rope, KeepsEveryValueAtPositionZero) {
  at::Tensor x = at::arange(1 << 16).to(at::kInt).mul(1 << 16).view(at::kFloat).view({64, 4, 256});
  x = at::where(at::isinf(x), at::zeros({}), x);  // the sum with 0 * inf is NaN
  const at::Tensor y = rope(x.to(GetParam()), at::zeros({64}, at::kLong), 10000).to(at::kFloat);
  for (const int64_t half : {0, 128}) {
    const at::Tensor a = x.narrow(2, half, 128), b = y.narrow(2, half, 128);
    const at::Tensor other = at::isnan(x.narrow(2, 128 - half, 128));
    EXPECT_TRUE(a.eq(b).logical_or_(at::isnan(b).logical_and_(at::isnan(a).logical_or_(other))).all().item<bool>());
    EXPECT_TRUE(at::isnan(b).eq(at::isnan(a).logical_or_(other)).all().item<bool>());
  }
}

TEST_P(Rope, NonContiguous) {
  const at::Tensor positions = at::arange(22).view({11, 2}).select(1, 1);
  compare(with(rope, positions), with(rope_reference, positions), {{normal({3, 11, 40}).transpose(0, 1)}}, GetParam(),
          "strided");
}

// The kernel's own sine and cosine in every quadrant, against the library's, at positions where an angle computed in
// float32 would be wrong in its second digit.
TEST(RopeAngles, ExactFarOut) {
  const std::vector<int64_t> far{0, 1, 2, 3, 4, 5, 6, 7, 31, 32767, 131071, 999983, 1000000, -1, -3, -1000000};
  const at::Tensor positions = at::tensor(far, at::kLong);
  const int64_t n = positions.numel(), half = 48;
  at::Tensor x = at::zeros({n, 1, 2 * half});
  x.narrow(2, 0, half).fill_(1);
  for (double base : {10000.0, 1.0}) {
    const at::Tensor y = rope(x, positions, base);
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t j = 0; j < half; ++j) {
        const double angle = static_cast<double>(far[t]) * std::pow(base, -2.0 * j / (2.0 * half));
        ASSERT_NEAR(y[t][0][j].item<double>(), std::cos(angle), 7e-8) << far[t] << " " << j;
        ASSERT_NEAR(y[t][0][half + j].item<double>(), std::sin(angle), 7e-8) << far[t] << " " << j;
      }
    }
  }
}

TEST(RopeAngles, OnlyDistancesMatter) {
  const at::Tensor q = at::randn({1, 2, 64}, at::kDouble), k = at::randn({1, 2, 64}, at::kDouble);
  const auto at_position = [](const at::Tensor& x, int64_t p) { return rope(x, at::full({1}, p, at::kLong), 10000); };
  const at::Tensor near = (at_position(q, 9) * at_position(k, 4)).sum(-1);
  const at::Tensor far = (at_position(q, 1009) * at_position(k, 1004)).sum(-1);
  EXPECT_LE((near - far).abs().max().item<double>(), 1e-10);
}

TEST(RopeErrors, NameTheArgument) {
  const at::Tensor x = at::randn({4, 2, 8}), p = at::arange(4);
  expect_error([&] { rope(x.to(at::kHalf), p, 10); }, "rope: x must be float32");
  expect_error([&] { rope(at::randn({4, 2, 7}), p, 10); }, "rope: x must have shape [N, H, Kd] with an even Kd");
  expect_error([&] { rope(at::randn({4, 2, 0}), p, 10); }, "rope: x must have shape [N, H, Kd] with an even Kd");
  expect_error([&] { rope(x[0], p, 10); }, "rope: x must have shape [N, H, Kd]");
  expect_error([&] { rope(x, p.to(at::kInt), 10); }, "rope: positions must be int64");
  expect_error([&] { rope(x, at::arange(5), 10); }, "rope: positions must have shape [4]");
  expect_error([&] { rope(x, p, 0); }, "rope: base must be positive");
  const at::Tensor leaf = x.clone().requires_grad_();
  // The loss is quadratic, so that its first gradient depends on the leaf.
  expect_no_double_backward(rope(leaf, p, 10).square().sum(), leaf, "rope");
}

}  // namespace
}  // namespace oryx::ops
