#include "ops/swiglu/op.h"

#include "ops/pointwise_testing.h"

namespace oryx::ops {
namespace {
using namespace oryx::ops::testing;

using Op = at::Tensor (*)(const at::Tensor&, const at::Tensor&);
Function with(Op op) {
  return [=](const std::vector<at::Tensor>& in) { return std::vector{op(in[0], in[1])}; };
}

class Swiglu : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, Swiglu, ::testing::Values(at::kDouble, at::kFloat, at::kBFloat16));

TEST_P(Swiglu, MatchesReference) {
  const std::vector<std::vector<int64_t>> shapes{{1},        {15},      {16, 16},   {17, 1},   {63, 40}, {2, 3, 65},
                                                 {130, 257}, {4, 0, 3}, {40, 1000}, {5, 4097}, {}};
  for (const auto& shape : shapes)
    for (Op op : {swiglu, swiglu_aten})
      compare(with(op), with(swiglu_reference), {{normal(shape) * 3}, {normal(shape)}}, GetParam(),
              std::to_string(shape.size()) + (op == swiglu ? " dims, kernel" : " dims, aten"));
}

TEST_P(Swiglu, GradientOfOneInput) {
  for (bool of_gate : {true, false})
    compare(with(swiglu), with(swiglu_reference), {{normal({9, 21}), of_gate}, {normal({9, 21}), !of_gate}}, GetParam(),
            "one gradient");
}

TEST_P(Swiglu, HalvesOfOneProjection) {
  const at::Tensor both = normal({33, 80});
  compare(with(swiglu), with(swiglu_reference), {{both.narrow(1, 0, 40)}, {both.narrow(1, 40, 40)}}, GetParam(),
          "halves");
}

TEST(SwigluValues, LargeGatesStayFinite) {
  for (auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor gate = at::tensor({-1e30, -200.0, -88.0, 0.0, 88.0, 200.0, 1e30}).to(type).requires_grad_();
    const at::Tensor y = swiglu(gate, at::ones_like(gate));
    const at::Tensor grad = torch::autograd::grad({y.sum()}, {gate})[0];
    const at::Tensor wanted = at::relu(gate.detach());
    EXPECT_LE((y.detach() - wanted).abs().max().item<double>(), 1e-30);
    EXPECT_LE((grad - at::tensor({0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0}).to(type)).abs().max().item<double>(), 1e-30);
  }
}

TEST(SwigluErrors, NameTheArgument) {
  const at::Tensor x = at::randn({4, 8});
  expect_error([&] { swiglu(x.to(at::kHalf), x); }, "swiglu: gate must be float32");
  expect_error([&] { swiglu(x, x.to(at::kDouble)); }, "swiglu: up must be Float");
  expect_error([&] { swiglu(x, at::randn({8, 4})); }, "swiglu: up must have shape [4, 8]");
  const at::Tensor leaf = x.clone().requires_grad_();
  expect_no_double_backward(swiglu(leaf, x).sum(), leaf, "swiglu");
}

}  // namespace
}  // namespace oryx::ops
