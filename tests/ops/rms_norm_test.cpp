#include "ops/rms_norm/op.h"

#include "ops/pointwise_testing.h"

namespace oryx::ops {
namespace {
using namespace oryx::ops::testing;

using Op = at::Tensor (*)(const at::Tensor&, const std::optional<at::Tensor>&, double, double,
                          std::optional<at::ScalarType>);

Function with(Op op, double scale, std::optional<at::ScalarType> dtype = std::nullopt) {
  return [=](const std::vector<at::Tensor>& in) {
    const auto weight = in[1].defined() ? std::optional(in[1]) : std::nullopt;
    // The exact evaluation is in fp64 throughout, also where the operation's output would be narrower.
    return std::vector{op(in[0], weight, 1e-5, scale, in[0].scalar_type() == at::kDouble ? std::nullopt : dtype)};
  };
}

class RmsNorm : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, RmsNorm, ::testing::Values(at::kDouble, at::kFloat, at::kBFloat16));

TEST_P(RmsNorm, MatchesReference) {
  const std::vector<std::vector<int64_t>> shapes{{1, 3},      {1, 7},     {17, 8},       {64, 24},
                                                 {65, 40},    {3, 5, 64}, {130, 256},    {2, 0, 16},
                                                 {100, 2000}, {15, 1000}, {2, 3, 4, 33}, {65}};
  for (const auto& shape : shapes) {
    for (Op op : {rms_norm, rms_norm_aten}) {
      for (bool weighted : {true, false}) {
        const std::string name = "d " + std::to_string(shape.back()) + (op == rms_norm ? " kernel" : " aten");
        compare(with(op, 0.75), with(rms_norm_reference, 0.75),
                {{normal(shape) * 3}, {weighted ? normal({shape.back()}) : at::Tensor()}}, GetParam(), name);
      }
    }
  }
}

// A row of one element is its sign: the gradient is all cancellation, so that only fp64 can be held to a tolerance.
TEST(RmsNormTypes, OneElement) {
  // The gradient is what two terms leave that are up to 1/eps as large.
  for (Op op : {rms_norm, rms_norm_aten})
    compare(with(op, 1), with(rms_norm_reference, 1), {{normal({5, 1})}, {normal({1})}}, at::kDouble, "d 1", 1e-11);
}

TEST_P(RmsNorm, GradientsOfSomeInputsOnly) {
  for (bool of_x : {true, false})
    compare(with(rms_norm, 1), with(rms_norm_reference, 1), {{normal({65, 40}), of_x}, {normal({40}), !of_x}},
            GetParam(), "one gradient");
}

TEST_P(RmsNorm, NonContiguous) {
  compare(with(rms_norm, 1), with(rms_norm_reference, 1), {{normal({40, 65}).t()}, {normal({40, 2}).select(1, 0)}},
          GetParam(), "strided");
}

TEST_P(RmsNorm, ANumberForEachHead) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{1, 1, 3}, {17, 3, 8}, {65, 4, 64}, {2, 5, 3, 40}, {0, 2, 8}, {2000, 2, 33}, {4, 7}})
    for (Op op : {rms_norm, rms_norm_aten})
      compare(with(op, 0.75), with(rms_norm_reference, 0.75),
              {{normal(shape) * 3}, {normal({shape[shape.size() - 2], 1})}}, GetParam(),
              "d " + std::to_string(shape.back()) + (op == rms_norm ? " kernel" : " aten"));
  compare(with(rms_norm, 1), with(rms_norm_reference, 1), {{normal({9, 3, 8}), false}, {normal({3, 1})}}, GetParam(),
          "the weight's gradient alone");
}

TEST(RmsNormTypes, OutputTypeAndWeightType) {
  for (auto in : {at::kFloat, at::kBFloat16}) {
    for (auto out : {at::kFloat, at::kBFloat16}) {
      // A weight in the accumulation type stays float32 beside bfloat16 inputs.
      const std::vector<Input> inputs{{normal({65, 48})}, {normal({48}), true, true}};
      for (Op op : {rms_norm, rms_norm_aten})
        compare(with(op, 1, out), with(rms_norm_reference, 1, out), inputs, in, "types",
                rounding_floor(in == at::kFloat && out == at::kFloat ? at::kFloat : at::kBFloat16));
      EXPECT_EQ(rms_norm(normal({2, 4}).to(in), std::nullopt, 1e-5, 1, out).scalar_type(), out);
    }
  }
  const at::Tensor x = normal({4, 8}).to(at::kBFloat16).requires_grad_();
  const at::Tensor weight = normal({8}).to(at::kFloat).requires_grad_();
  const auto grads = torch::autograd::grad({rms_norm(x, weight, 1e-5).sum()}, {x, weight});
  EXPECT_EQ(grads[0].scalar_type(), at::kBFloat16);
  EXPECT_EQ(grads[1].scalar_type(), at::kFloat);
}

TEST(RmsNormTypes, ZeroRowsStayFinite) {
  const at::Tensor x = at::zeros({3, 20}).requires_grad_();
  const at::Tensor y = rms_norm(x, std::nullopt, 1e-5);
  EXPECT_EQ(y.abs().max().item<float>(), 0);
  const auto grads = torch::autograd::grad({y.sum()}, {x});
  EXPECT_NEAR(grads[0].max().item<double>(), 1 / std::sqrt(1e-5), 1e-3);
}

TEST(RmsNormTypes, WeightGradientDoesNotDependOnThreads) {
  const at::Tensor x = normal({9000, 33}).to(at::kFloat), weight = normal({33}).to(at::kFloat).requires_grad_();
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> results;
  for (int n : {1, 2, 1, 2}) {
    at::set_num_threads(n);
    results.push_back(torch::autograd::grad({rms_norm(x, weight, 1e-5).square().sum()}, {weight})[0]);
  }
  at::set_num_threads(threads);
  for (const auto& result : results) EXPECT_TRUE(at::equal(result, results[0]));
}

TEST(RmsNormErrors, NameTheArgument) {
  const at::Tensor x = at::randn({4, 8}), w = at::ones({8});
  for (auto op : {rms_norm}) {
    expect_error([&] { op(at::ones({4, 8}, at::kLong), w, 1e-5, 1, std::nullopt); }, "rms_norm: x must be float32");
    expect_error([&] { op(at::randn({}), std::nullopt, 1e-5, 1, std::nullopt); }, "rms_norm: x must have shape");
    expect_error([&] { op(at::randn({4, 0}), std::nullopt, 1e-5, 1, std::nullopt); }, "rms_norm: x must have shape");
    expect_error([&] { op(x, at::ones({7}), 1e-5, 1, std::nullopt); }, "rms_norm: weight must have shape [8]");
    expect_error([&] { op(x, at::ones({3, 1}), 1e-5, 1, std::nullopt); }, "rms_norm: weight must have shape [4, 1]");
    expect_error([&] { op(x, w.to(at::kDouble), 1e-5, 1, std::nullopt); }, "rms_norm: weight must be Float");
    expect_error([&] { op(x, w, -1, 1, std::nullopt); }, "rms_norm: eps");
    expect_error([&] { op(x, w, 1e-5, 1, at::kHalf); }, "rms_norm: dtype must be float32 or bfloat16");
    expect_error([&] { op(x.to(at::kDouble), std::nullopt, 1e-5, 1, at::kFloat); }, "rms_norm: dtype must be float64");
  }
  const at::Tensor leaf = x.clone().requires_grad_();
  expect_no_double_backward(rms_norm(leaf, w, 1e-5).sum(), leaf, "rms_norm");
}

// Its gradients against those of the two operations, where both outputs are used, or one.
TEST(AddRmsNorm, GradientsAreThoseOfTheTwoOperations) {
  at::manual_seed(6);
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{1, 3}, {17, 8}, {3, 5, 64}, {2, 0, 16}, {15, 1000}}) {
    const auto leaf = [](const at::Tensor& x) { return x.clone().requires_grad_(true); };
    const at::Tensor x = leaf(normal(shape)), y = leaf(normal(shape)), weight = leaf(normal({shape.back()}));
    const at::Tensor to_sum = normal(shape), to_normed = normal(shape);
    for (const auto& [of_sum, of_normed] : {std::pair{1, 1}, {1, 0}, {0, 1}}) {
      const auto gradients = [&](const at::Tensor& sum, const at::Tensor& normed) {
        at::Tensor loss = at::zeros({}, at::kDouble);
        if (of_sum > 0) loss = loss + (sum * to_sum).sum();
        if (of_normed > 0) loss = loss + (normed * to_normed).sum();
        auto all = torch::autograd::grad({loss}, {x, y, weight}, {}, std::nullopt, false, /*allow_unused=*/true);
        if (!all[2].defined()) all[2] = at::zeros_like(weight);
        return all;
      };
      const auto [sum, normed] = add_rms_norm(x, y, weight, 1e-5);
      const at::Tensor plain_sum = x + y;
      const auto got = gradients(sum, normed);
      const auto want = gradients(plain_sum, rms_norm_reference(plain_sum, weight, 1e-5));
      for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::allclose(got[i], want[i], 1e-10, 1e-12)) << i;
    }
  }
}

// What is summed in bfloat16 has its gradient in bfloat16: x's, rounded once.
TEST(AddRmsNorm, GradientsHaveTheirInputsTypes) {
  at::manual_seed(7);
  const at::Tensor sum = normal({9, 40}).to(at::kFloat), weight = normal({40}).to(at::kFloat);
  const at::Tensor to_sum = normal({9, 40}).to(at::kFloat), to_normed = normal({9, 40}).to(at::kBFloat16);
  const auto got = add_rms_norm_backward(sum, weight, 1e-5, to_sum, to_normed, at::kBFloat16);
  EXPECT_EQ(got.x.scalar_type(), at::kFloat);
  EXPECT_EQ(got.y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(got.y, got.x.to(at::kBFloat16)));
}

// The sum is the same bits as x + y, and its norm those of rms_norm, with a graph and without.
TEST(AddRmsNorm, EqualsTheTwoOperations) {
  at::manual_seed(5);
  struct Types {
    at::ScalarType x, y;
  };
  for (const Types types : {Types{at::kDouble, at::kDouble}, Types{at::kFloat, at::kFloat},
                            Types{at::kFloat, at::kBFloat16}, Types{at::kBFloat16, at::kBFloat16}}) {
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{1, 3}, {17, 8}, {65, 40}, {3, 5, 64}, {2, 0, 16}, {15, 1000}, {33}}) {
      const at::Tensor x = normal(shape).to(types.x), y = (normal(shape) * 2).to(types.y);
      const auto wide = types.x == at::kBFloat16 ? at::kFloat : types.x;
      const at::Tensor weight = normal({shape.back()}).to(wide);
      const at::Tensor sum = (x.to(wide) + y.to(wide)).to(types.x);
      const auto [got, normed] = add_rms_norm(x, y, weight, 1e-5);
      EXPECT_TRUE(at::equal(got, sum));
      EXPECT_EQ(normed.scalar_type(), types.y);
      EXPECT_TRUE(at::equal(normed, rms_norm(sum, weight, 1e-5, 1.0, types.y)));
      const at::Tensor leaf = y.clone().requires_grad_(true);
      const auto [traced, traced_norm] = add_rms_norm(x, leaf, weight, 1e-5);
      EXPECT_TRUE(at::equal(traced, sum));
      EXPECT_TRUE(at::equal(traced_norm, normed));
      EXPECT_TRUE(traced_norm.requires_grad() && traced.requires_grad());
    }
  }
  const at::Tensor strided = normal({40, 65}).t(), weight = normal({40});
  const auto [sum, normed] = add_rms_norm(strided, strided, weight, 1e-5);
  EXPECT_TRUE(at::equal(sum, strided + strided));
  EXPECT_TRUE(at::equal(normed, rms_norm(sum, weight, 1e-5)));
  EXPECT_THROW(add_rms_norm(strided, strided.slice(0, 1), weight, 1e-5), c10::Error);
  EXPECT_THROW(add_rms_norm(strided, strided.to(at::kBFloat16), weight, 1e-5), c10::Error);  // x is float64
  EXPECT_THROW(add_rms_norm(strided, strided, weight.slice(0, 1), 1e-5), c10::Error);
}

}  // namespace
}  // namespace oryx::ops
