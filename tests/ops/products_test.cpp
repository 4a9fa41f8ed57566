#include "ops/common/products.h"

#include "ops/op_testing.h"

namespace oryx::ops {
namespace {
using namespace oryx::ops::testing;

class Linear : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, Linear, ::testing::Values(at::kDouble, at::kFloat, at::kBFloat16));

TEST_P(Linear, MatchesLibTorch) {
  const Function fast = [](const std::vector<at::Tensor>& in) { return std::vector{ops::linear(in[0], in[1])}; };
  const Function naive = [](const std::vector<at::Tensor>& in) { return std::vector{at::linear(in[0], in[1])}; };
  for (const int64_t rows : {1, 4, 5, 255, 257, 513})
    compare(fast, naive, {{normal({rows, 33})}, {normal({19, 33})}}, GetParam(), std::to_string(rows) + " rows");
  compare(fast, naive, {{normal({0, 8})}, {normal({5, 8})}}, GetParam(), "no rows");
  compare(fast, naive, {{normal({2, 7, 16})}, {normal({3, 16})}}, GetParam(), "batched");
  compare(fast, naive, {{normal({16, 40}).t()}, {normal({16, 24}).t()}}, GetParam(), "strided");
}

// Of bfloat16 no digit is lost in the sum, only in the result, with the rows that are taken one by one too.
TEST(LinearValues, AddsUpInFloat) {
  const at::Tensor x = at::ones({300, 4096}, at::kBFloat16), w = at::ones({2, 4096}, at::kBFloat16);
  EXPECT_TRUE(ops::linear(x, w).eq(4096).all().item<bool>());
  EXPECT_TRUE(ops::linear(x.slice(0, 0, 1), w).eq(4096).all().item<bool>());
}

TEST(ProductOut, WritesIntoAPart) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor a = at::randn({300, 20}).to(type), b = at::randn({40, 20}).to(type).t();
    const at::Tensor whole = at::zeros({302, 40}, type);
    at::Tensor out = whole.slice(0, 1, 301);
    product_out(out, a, b);
    const at::Tensor exact = at::mm(a.to(at::kDouble), b.to(at::kDouble));
    EXPECT_LE((out.to(at::kDouble) - exact).abs().max().item<double>(), type == at::kFloat ? 1e-5 : 0.13);
    EXPECT_EQ(whole[0].abs().max().item<float>() + whole[301].abs().max().item<float>(), 0);
  }
}

TEST(WideProduct, IsOfTheAccumulationType) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const at::Tensor a = at::randn({300, 20}).to(type), b = at::randn({40, 20}).to(type).t();
    const at::Tensor exact = at::mm(a.to(at::kDouble), b.to(at::kDouble)), once = wide_product(a, b);
    EXPECT_EQ(once.scalar_type(), type == at::kDouble ? at::kDouble : at::kFloat);
    // Rounded on the way where there is no such product, to 2^-9 of up to 20.
    const double limit = has_wide_products(a) ? 1e-5 : 0.07;
    EXPECT_LE((once - exact).abs().max().item<double>(), limit);
    if (!has_wide_products(a)) continue;
    const at::Tensor sum = once.clone();
    add_wide_product(sum, a, b);
    EXPECT_LE((sum - 2 * exact).abs().max().item<double>(), 2e-5);
  }
}

// More columns and more rows than are widened at once.
TEST(WideProduct, TakesWideMatricesApart) {
  const at::Tensor a = at::randn({300, 40000}).to(at::kBFloat16), b = at::randn({40000, 150}).to(at::kBFloat16);
  const at::Tensor exact = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  EXPECT_LE((wide_product(a, b) - exact).abs().max().item<double>(), has_wide_products(a) ? 1e-2 : 4);
  EXPECT_LE((matrix_product(a, b) - exact).abs().max().item<double>(), 4);  // 2^-9 of up to 1,000
  const at::Tensor sum = at::ones({300, 150});
  if (!has_wide_products(a)) return;
  add_wide_product(sum, a, b);
  EXPECT_LE((sum - 1 - exact).abs().max().item<double>(), 1e-2);
}

TEST(LinearValues, AsksForNoMoreThanIsWanted) {
  const at::Tensor x = at::randn({9, 8}).to(at::kBFloat16), w = at::randn({3, 8}).to(at::kBFloat16).requires_grad_();
  const auto grads = torch::autograd::grad({ops::linear(x, w).sum()}, {w});
  EXPECT_EQ(grads[0].scalar_type(), at::kBFloat16);
  EXPECT_FALSE(ops::linear(x, w.detach()).requires_grad());
}

}  // namespace
}  // namespace oryx::ops
