#include "ops/short_conv/op.h"

#include "ops/pointwise_testing.h"

namespace oryx::ops {
namespace {
using namespace oryx::ops::testing;

using Op = std::tuple<at::Tensor, at::Tensor> (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                  const std::optional<at::Tensor>&, std::string_view);
enum class Outputs { both, y, final_state };

Function with(Op op, const std::vector<int64_t>& lengths, std::string_view activation,
              Outputs outputs = Outputs::both) {
  return [=](const std::vector<at::Tensor>& in) {
    const auto state = in[2].defined() ? std::optional(in[2]) : std::nullopt;
    const auto [y, final_state] = op(in[0], in[1], cu_seqlens(lengths), state, activation);
    if (outputs == Outputs::both) return std::vector{y, final_state};
    return std::vector{outputs == Outputs::y ? y : final_state};
  };
}

std::vector<Input> inputs(const std::vector<int64_t>& lengths, int64_t channels, int64_t width, bool with_state) {
  const auto sequences = static_cast<int64_t>(lengths.size());
  return {{normal({total(lengths), channels})},
          {normal({channels, width})},
          {with_state ? normal({sequences, channels, width - 1}) : at::Tensor()}};
}

std::string describe(const std::vector<int64_t>& lengths, int64_t channels, int64_t width) {
  return ::testing::PrintToString(lengths) + " C " + std::to_string(channels) + " W " + std::to_string(width);
}

class ShortConv : public ::testing::TestWithParam<std::tuple<at::ScalarType, const char*>> {
 protected:
  at::ScalarType type() const { return std::get<0>(GetParam()); }
  std::string_view activation() const { return std::get<1>(GetParam()); }
  void check(Op op, const std::vector<int64_t>& lengths, int64_t channels, int64_t width, bool with_state,
             Outputs outputs = Outputs::both) {
    compare(with(op, lengths, activation(), outputs), with(short_conv_reference, lengths, activation(), outputs),
            inputs(lengths, channels, width, with_state), type(), describe(lengths, channels, width));
  }
};
INSTANTIATE_TEST_SUITE_P(Types, ShortConv,
                         ::testing::Combine(::testing::Values(at::kDouble, at::kFloat, at::kBFloat16),
                                            ::testing::Values("none", "silu")));

TEST_P(ShortConv, RaggedSequences) {
  for (const auto& lengths : ragged_cases())
    for (Op op : {short_conv, short_conv_aten})
      for (bool state : {false, true}) check(op, lengths, 24, 4, state);
}

TEST_P(ShortConv, Widths) {
  for (int64_t width : {1, 2, 3, 5, 8, 70})
    for (Op op : {short_conv, short_conv_aten}) check(op, {3, 0, 16, 40}, 17, width, width % 2 == 0);
}

TEST_P(ShortConv, ChannelTiles) {
  for (int64_t channels : {1, 8, 33, 256, 1023, 1024, 1025, 2100}) check(short_conv, {5, 17}, channels, 4, true);
}

TEST_P(ShortConv, BlocksOfTokens) {
  // Sequences that end at the block's edge, one before and one after, and several blocks.
  for (int64_t length : {124, 125, 126, 127, 128, 129, 131, 257}) check(short_conv, {length, 2}, 8, 4, true);
}

TEST_P(ShortConv, NothingButEmptySequences) {
  for (Op op : {short_conv, short_conv_aten}) check(op, {0, 0}, 8, 4, true, Outputs::final_state);
}

TEST_P(ShortConv, GradientThroughOneOutput) {
  for (Outputs outputs : {Outputs::y, Outputs::final_state})
    for (Op op : {short_conv, short_conv_aten})
      compare(
          with(op, {2, 9, 0}, activation(), outputs), with(short_conv_reference, {2, 9, 0}, activation(), outputs),
          [&] {
            auto in = inputs({2, 9, 0}, 8, 4, true);
            in[1].grad = outputs == Outputs::y;  // the final state does not depend on the weight
            return in;
          }(),
          type(), "one output");
}

TEST_P(ShortConv, GradientOfOneInput) {
  for (size_t one = 0; one < 3; ++one) {
    auto in = inputs({5, 0, 130}, 24, 4, true);
    for (size_t i = 0; i < 3; ++i) in[i].grad = i == one;
    compare(with(short_conv, {5, 0, 130}, activation()), with(short_conv_reference, {5, 0, 130}, activation()), in,
            type(), "only " + std::to_string(one));
  }
}

TEST_P(ShortConv, NonContiguous) {
  compare(with(short_conv, {7, 12}, activation()), with(short_conv_reference, {7, 12}, activation()),
          {{normal({24, 19}).t()}, {normal({4, 24}).t()}, {normal({2, 3, 24}).transpose(1, 2)}}, type(), "strided");
}

TEST_P(ShortConv, AccumulationTypeWeight) {
  auto in = inputs({7, 12}, 24, 4, true);
  in[1].accumulate = true;
  for (Op op : {short_conv, short_conv_aten})
    compare(with(op, {7, 12}, activation()), with(short_conv_reference, {7, 12}, activation()), in, type(), "weight");
}

// Reading in pieces, the state carried between them, gives bit for bit what reading at once gives.
TEST_P(ShortConv, PiecesEqualTheWhole) {
  const at::Tensor x = normal({150, 40}).to(type()), w = normal({40, 4}).to(type());
  const auto [whole, last] = short_conv(x, w, cu_seqlens({150}), std::nullopt, activation());
  std::optional<at::Tensor> state;
  int64_t begin = 0;
  for (int64_t n : {1, 1, 2, 0, 130, 16}) {
    const auto [y, next] = short_conv(x.narrow(0, begin, n), w, cu_seqlens({n}), state, activation());
    EXPECT_TRUE(at::equal(y, whole.narrow(0, begin, n))) << begin;
    state = next;
    begin += n;
  }
  EXPECT_TRUE(at::equal(*state, last));
  EXPECT_EQ(last.scalar_type(), type());
}

TEST(ShortConvWeights, GradientDoesNotDependOnThreads) {
  const at::Tensor x = at::randn({3000, 300}), w = at::randn({300, 4}).requires_grad_();
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> results;
  for (int n : {1, 2, 1, 2}) {
    at::set_num_threads(n);
    const auto y = std::get<0>(short_conv(x, w, cu_seqlens({1000, 2000}), std::nullopt, "silu"));
    results.push_back(torch::autograd::grad({y.square().sum()}, {w})[0]);
  }
  at::set_num_threads(threads);
  for (const auto& result : results) EXPECT_TRUE(at::equal(result, results[0]));
}

TEST(ShortConvErrors, NameTheArgument) {
  const at::Tensor x = at::randn({6, 8}), w = at::randn({8, 4}), cu = cu_seqlens({2, 4}), s = at::randn({2, 8, 3});
  expect_error([&] { short_conv(x.to(at::kHalf), w, cu); }, "short_conv: x must be float32");
  expect_error([&] { short_conv(x[0], w, cu); }, "short_conv: x must have shape [N, C]");
  expect_error([&] { short_conv(x, at::randn({7, 4}), cu); }, "short_conv: weight must have shape [8, any]");
  expect_error([&] { short_conv(x, at::randn({8, 0}), cu); }, "short_conv: weight must have shape [C, W] with W >= 1");
  expect_error([&] { short_conv(x, w.to(at::kDouble), cu); }, "short_conv: weight must be Float");
  expect_error([&] { short_conv(x, w, cu.to(at::kLong)); }, "short_conv: cu_seqlens must be int32");
  expect_error([&] { short_conv(x, w, cu_seqlens({2, 3})); }, "short_conv: cu_seqlens must run from 0 to 6");
  expect_error([&] { short_conv(x, w, at::tensor({0, 7, 6}, at::kInt)); }, "short_conv: cu_seqlens must not decrease");
  expect_error(
      [&] {
        short_conv(x, w, cu, at::randn({2, 8, 4}));
      },
      "short_conv: initial_state must have shape [2, 8, 3]");
  expect_error([&] { short_conv(x, w, cu, s.to(at::kBFloat16)); }, "short_conv: initial_state must be Float");
  expect_error([&] { short_conv(x, w, cu, s, "relu"); }, "short_conv: activation must be \"none\" or \"silu\"");
  const at::Tensor leaf = x.clone().requires_grad_();
  expect_no_double_backward(std::get<0>(short_conv(leaf, w, cu)).sum(), leaf, "short_conv");
}

}  // namespace
}  // namespace oryx::ops
