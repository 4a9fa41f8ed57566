#include "ops/linear_cross_entropy/op.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "ops/op_testing.h"

namespace oryx::ops::testing {

using CrossEntropyOp = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t);

const std::vector<at::ScalarType> kTypes{at::kDouble, at::kFloat, at::kBFloat16};
constexpr int64_t kIgnore = -100;

// Targets with about one in five ignored.
at::Tensor targets_of(int64_t tokens, int64_t vocabulary, bool ignoring) {
  at::Tensor t = at::randint(vocabulary, {tokens}, at::kLong);
  if (ignoring)
    for (int64_t n = 3; n < tokens; n += 5) t[n] = kIgnore;
  return t;
}

struct CrossEntropyCase {
  int64_t tokens = 17, dim = 24, vocabulary = 50;
  bool ignoring = false, non_contiguous = false;
  double scale = 0.5;  // of the hidden states

  void check(CrossEntropyOp op) const {
    at::manual_seed(3);
    const at::Tensor targets = targets_of(tokens, vocabulary, ignoring);
    const auto make = [&](int64_t n) { return non_contiguous ? normal({dim, n}).t() : normal({n, dim}); };
    const std::vector<Input> inputs{{make(tokens) * scale}, {make(vocabulary)}};
    const auto with = [&](CrossEntropyOp f) -> Function {
      return [=](const std::vector<at::Tensor>& x) { return std::vector<at::Tensor>{f(x[0], x[1], targets, kIgnore)}; };
    };
    for (auto type : kTypes)
      compare(with(op), with(linear_cross_entropy_reference), inputs, type,
              std::to_string(tokens) + " tokens, dim " + std::to_string(dim) + ", vocabulary " +
                  std::to_string(vocabulary) + (ignoring ? ", ignoring " : " ") + c10::toString(type));
  }
};

class CrossEntropyPaths : public ::testing::TestWithParam<CrossEntropyOp> {};
INSTANTIATE_TEST_SUITE_P(LinearCrossEntropy, CrossEntropyPaths,
                         ::testing::Values(&linear_cross_entropy, &linear_cross_entropy_aten),
                         [](const auto& info) { return info.index == 0 ? "Kernel" : "Aten"; });

TEST_P(CrossEntropyPaths, Shapes) {
  for (int64_t tokens : {1, 15, 16, 17, 63, 64, 65, 130})
    for (bool ignoring : {false, true}) {
      CrossEntropyCase c;
      c.tokens = tokens, c.ignoring = ignoring;
      c.check(GetParam());
    }
  for (auto [dim, vocabulary] : {std::pair<int64_t, int64_t>{1, 1}, {8, 2}, {40, 16}, {13, 257}, {256, 1000}}) {
    CrossEntropyCase c;
    c.dim = dim, c.vocabulary = vocabulary, c.scale = 0.2;
    c.check(GetParam());
  }
}

// More tokens and words than one block holds.
TEST_P(CrossEntropyPaths, SeveralBlocks) {
  CrossEntropyCase c;
  c.tokens = 1100, c.dim = 8, c.vocabulary = 2500;
  c.check(GetParam());
}

TEST_P(CrossEntropyPaths, NonContiguous) {
  CrossEntropyCase c;
  c.non_contiguous = true;
  c.check(GetParam());
}

// The sum and its gradients are those of the tokens' losses.
using SumOp = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, double);
class CrossEntropySums : public ::testing::TestWithParam<SumOp> {};
INSTANTIATE_TEST_SUITE_P(LinearCrossEntropy, CrossEntropySums,
                         ::testing::Values(&linear_cross_entropy_sum, &linear_cross_entropy_sum_aten),
                         [](const auto& info) { return info.index == 0 ? "Kernel" : "Aten"; });

TEST_P(CrossEntropySums, MatchTheReference) {
  at::manual_seed(3);
  for (const auto& [tokens, dim, vocabulary] :
       {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {17, 24, 50}, {130, 13, 257}, {1100, 8, 2500}})
    for (const bool ignoring : {false, true}) {
      const at::Tensor targets = targets_of(tokens, vocabulary, ignoring);
      const auto sum = [&](const std::vector<at::Tensor>& x) {
        return std::vector{GetParam()(x[0], x[1], targets, kIgnore, 1.0 / tokens)};
      };
      const auto expected = [&](const std::vector<at::Tensor>& x) {
        return std::vector{linear_cross_entropy_reference(x[0], x[1], targets, kIgnore).sum() / tokens};
      };
      const bool wide = tokens == 130;  // the weight: float32 beside bfloat16
      for (auto type : kTypes)
        compare(sum, expected, {{normal({tokens, dim}) * 0.5}, {normal({vocabulary, dim}), true, wide}}, type,
                std::to_string(tokens) + " tokens " + c10::toString(type), wide ? rounding_floor(type) : 0);
    }
}

TEST_P(CrossEntropySums, Sides) {
  at::manual_seed(3);
  const at::Tensor h = at::randn({30, 8}), weight = at::randn({40, 8}), targets = targets_of(30, 40, true);
  const auto gradient = [&](bool of_h, bool of_weight) {
    const at::Tensor x = h.clone().requires_grad_(of_h), w = weight.clone().requires_grad_(of_weight);
    const at::Tensor loss = GetParam()(x, w, targets, kIgnore, 1) * 3;
    return torch::autograd::grad({loss}, of_h && of_weight ? std::vector{x, w} : std::vector{of_h ? x : w});
  };
  const auto both = gradient(true, true);
  EXPECT_TRUE(at::equal(gradient(true, false)[0], both[0]));
  EXPECT_TRUE(at::equal(gradient(false, true)[0], both[1]));
  EXPECT_FALSE(GetParam()(h, weight, targets, kIgnore, 1).requires_grad());
  const at::Tensor master = at::randn({40, 8}).requires_grad_();
  const at::Tensor narrow = GetParam()(h.to(at::kBFloat16), master, targets, kIgnore, 1);
  EXPECT_EQ(torch::autograd::grad({narrow}, {master})[0].scalar_type(), at::kFloat);

  // Twice through one graph, and nothing of what is ignored reaches a result.
  at::Tensor x = h.clone();
  x.index_put_({targets.eq(kIgnore)}, at::full({}, NAN));
  x.requires_grad_();
  const at::Tensor loss = GetParam()(x, weight, targets, kIgnore, 1);
  const auto first = torch::autograd::grad({loss}, {x}, {}, /*retain_graph=*/true)[0];
  EXPECT_TRUE(at::equal(first, torch::autograd::grad({loss}, {x})[0]));
  EXPECT_TRUE(first.index({targets.eq(kIgnore)}).eq(0).all().item<bool>());
  EXPECT_TRUE(at::isfinite(first).all().item<bool>());
  EXPECT_TRUE(at::isfinite(loss).all().item<bool>());

  // No tokens, or none that count.
  const at::Tensor leaf = weight.clone().requires_grad_(), none = at::full({30}, kIgnore, at::kLong);
  for (const int64_t tokens : {0, 30}) {
    const at::Tensor zero = GetParam()(h.slice(0, 0, tokens), leaf, none.slice(0, 0, tokens), kIgnore, 1);
    EXPECT_EQ(zero.item<double>(), 0);
    EXPECT_TRUE(torch::autograd::grad({zero}, {leaf})[0].eq(0).all().item<bool>());
  }
}

// exp of these logits, and of their differences, leaves the range.
TEST_P(CrossEntropyPaths, LargeLogits) {
  CrossEntropyCase c;
  c.scale = 3000;
  c.check(GetParam());
}

TEST_P(CrossEntropyPaths, IgnoredTokens) {
  at::manual_seed(3);
  const at::Tensor targets = targets_of(20, 30, true), ignored = targets.eq(kIgnore);
  at::Tensor h = at::randn({20, 8});
  h.index_put_({ignored}, at::full({}, NAN));  // nothing of an ignored token may reach a result
  h.requires_grad_(true);
  const at::Tensor weight = at::randn({30, 8}).requires_grad_(true);
  const at::Tensor loss = GetParam()(h, weight, targets, kIgnore);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  EXPECT_TRUE(loss.index({ignored}).eq(0).all().item<bool>());
  EXPECT_TRUE(loss.index({~ignored}).gt(0).all().item<bool>());
  const auto grads = torch::autograd::grad({loss.sum()}, {h, weight});
  EXPECT_TRUE(grads[0].index({ignored}).eq(0).all().item<bool>());
  EXPECT_TRUE(at::isfinite(grads[1]).all().item<bool>());

  // A word of the vocabulary can be the ignored one, and all tokens may be.
  const at::Tensor clean = at::randn({20, 8}).requires_grad_(true), zeros = at::zeros({20}, at::kLong);
  const at::Tensor none = GetParam()(clean, weight, zeros, 0);
  EXPECT_TRUE(at::equal(none, at::zeros({20})));
  EXPECT_TRUE(at::equal(torch::autograd::grad({none.sum()}, {clean})[0], at::zeros({20, 8})));
  EXPECT_TRUE(GetParam()(clean, weight, zeros, kIgnore).gt(0).all().item<bool>());
  EXPECT_EQ(GetParam()(clean.slice(0, 0, 0), weight, zeros.slice(0, 0, 0), 0).numel(), 0);
}

TEST_P(CrossEntropyPaths, FiniteDifferences) {
  at::manual_seed(3);
  const at::Tensor targets = targets_of(9, 20, true), upstream = normal({9});
  const std::vector<at::Tensor> leaves{normal({9, 5}).requires_grad_(true), normal({20, 5}).requires_grad_(true)};
  const auto loss = [&](const std::vector<at::Tensor>& x) {
    return (GetParam()(x[0], x[1], targets, kIgnore) * upstream).sum();
  };
  const auto gradients = torch::autograd::grad({loss(leaves)}, leaves);
  c10::NoGradGuard no_grad;
  for (size_t i = 0; i < 2; ++i) {
    const at::Tensor direction = normal(leaves[i].sizes());
    auto plus = leaves, minus = leaves;
    plus[i] = leaves[i] + 1e-6 * direction;
    minus[i] = leaves[i] - 1e-6 * direction;
    const double numeric = (loss(plus) - loss(minus)).item<double>() / 2e-6;
    EXPECT_NEAR((gradients[i] * direction).sum().item<double>(), numeric, 1e-6 * (1 + std::abs(numeric))) << i;
  }
}

TEST_P(CrossEntropyPaths, GradientOfOneInput) {
  at::manual_seed(3);
  const at::Tensor h = at::randn({30, 8}), weight = at::randn({40, 8}), targets = targets_of(30, 40, true);
  const auto gradient = [&](bool of_h, bool of_weight) {
    const at::Tensor x = h.clone().requires_grad_(of_h), w = weight.clone().requires_grad_(of_weight);
    const at::Tensor loss = GetParam()(x, w, targets, kIgnore).sum();
    return torch::autograd::grad({loss}, of_h && of_weight ? std::vector{x, w} : std::vector{of_h ? x : w});
  };
  const auto both = gradient(true, true);
  EXPECT_TRUE(at::equal(gradient(true, false)[0], both[0]));
  EXPECT_TRUE(at::equal(gradient(false, true)[0], both[1]));
}

// Bytes of tensors alive on this thread, and the most there were.
class MemoryMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    now += bytes;
    peak = std::max(peak, now);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t now = 0, peak = 0;
};

// Bytes that loss and gradients take at most, beyond both gradients.
int64_t peak_beside_gradients(CrossEntropyOp op, int64_t N, int64_t V, int64_t D, at::ScalarType type) {
  const auto h = at::randn({N, D}).to(type).requires_grad_(true), weight = at::randn({V, D}).to(type);
  const at::Tensor w = weight.clone().requires_grad_(true), targets = at::randint(V, {N}, at::kLong);
  const auto meter = std::make_shared<MemoryMeter>();
  {
    c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
    const at::Tensor loss = op(h, w, targets, kIgnore).mean();
    const auto grads = torch::autograd::grad({loss}, {h, w});
  }
  const int64_t results = (N + V) * D * static_cast<int64_t>(h.element_size());
  EXPECT_GT(meter->peak, results) << "nothing was measured";
  return meter->peak - results;
}

TEST_P(CrossEntropyPaths, PeakMemory) {
  constexpr int64_t N = 2048, V = 32000;
  for (auto type : {at::kFloat, at::kBFloat16})
    EXPECT_LT(peak_beside_gradients(GetParam(), N, V, 16, type), N * V * static_cast<int64_t>(elementSize(type)) / 8)
        << type;
}

// The float32 sums of h's gradient and what they are rounded to are never there at once.
TEST_P(CrossEntropyPaths, PeakMemoryOfManyTokens) {
  EXPECT_LT(peak_beside_gradients(GetParam(), 32768, 64, 64, at::kBFloat16), 32768 * 64 * 4 * 85 / 100);
}

TEST(LinearLogProbs, AreThoseOfTheLossAndTheLargestLogit) {
  at::manual_seed(3);
  const at::Tensor exact = normal({1100, 8}), exact_weight = normal({2500, 8});  // several blocks
  for (const auto op : {&linear_log_probs, &linear_log_probs_aten})
    for (const auto type : kTypes) {
      const at::Tensor h = exact.to(type).requires_grad_(true), weight = exact_weight.to(type);
      const at::Tensor targets = targets_of(1100, 2500, false);
      const auto [log_probs, best] = op(h, weight, targets);
      const at::Tensor loss = linear_cross_entropy(h, weight, targets);
      EXPECT_FALSE(log_probs.requires_grad() || best.requires_grad());
      EXPECT_EQ(log_probs.scalar_type(), type == at::kDouble ? at::kDouble : at::kFloat);
      EXPECT_LT((log_probs + loss).abs().max().item<double>(), type == at::kDouble ? 1e-12 : 1e-5);
      // The largest logit's own log probability.
      const at::Tensor top = at::mm(h.detach(), weight.t()).argmax(1);
      const auto [of_top, again] = op(h, weight, top);
      EXPECT_TRUE(at::equal(best, again));
      EXPECT_TRUE(at::equal(of_top, best));
      EXPECT_TRUE(log_probs.le(best).all().item<bool>());
      EXPECT_EQ(std::get<0>(op(h.slice(0, 0, 0), weight, targets.slice(0, 0, 0))).numel(), 0);
      for (const int64_t outside : {-1, -100, 2500})
        EXPECT_THROW(op(h.slice(0, 0, 1), weight, at::tensor({outside}, at::kLong)), c10::Error) << outside;
    }
}

TEST(LinearCrossEntropy, WithoutGradients) {
  at::manual_seed(3);
  const at::Tensor h = at::randn({30, 8}), weight = at::randn({40, 8}), targets = targets_of(30, 40, true);
  const at::Tensor with_graph = linear_cross_entropy(h.clone().requires_grad_(true), weight, targets);
  EXPECT_TRUE(with_graph.requires_grad());
  EXPECT_FALSE(linear_cross_entropy(h, weight, targets).requires_grad());
  c10::InferenceMode inference;
  EXPECT_TRUE(at::equal(linear_cross_entropy(h, weight, targets), with_graph));
}

void expect_error(const std::function<void()>& call, const std::string& words) {
  try {
    call();
    ADD_FAILURE() << "no error; expected one with: " << words;
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what_without_backtrace()).find(words), std::string::npos)
        << error.what_without_backtrace();
  }
}

TEST_P(CrossEntropyPaths, Errors) {
  const at::Tensor h = at::randn({4, 8}), weight = at::randn({10, 8}), t = at::tensor({1, -100, 9, 0}, at::kLong);
  const auto with = [op = GetParam()](const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
    return [=] { op(a, b, c, kIgnore); };
  };
  expect_error(with(h[0], weight, t), "linear_cross_entropy: h must have shape [any, any]");
  expect_error(with(h.to(at::kHalf), weight, t), "h must be float32, bfloat16 or float64");
  expect_error(with(h, weight.slice(1, 1), t), "weight must have shape [any, 8]");
  expect_error(with(h, weight.slice(0, 0, 0), t), "weight must have at least one row");
  expect_error(with(h, weight.to(at::kDouble), t), "weight must be Float");
  expect_error(with(h, weight, t.slice(0, 1)), "targets must have shape [4]");
  expect_error(with(h, weight, t.to(at::kInt)), "targets must be int64");
  expect_error(with(h, weight, at::tensor({1, 2, 10, 0}, at::kLong)), "but 10 stands at 2");
  expect_error(with(h, weight, at::tensor({1, -1, 9, 0}, at::kLong)), "but -1 stands at 1");
  const at::Tensor leaf = h.clone().requires_grad_(true);
  expect_error(
      [&] {
        torch::autograd::grad({GetParam()(leaf, weight, t, kIgnore).sum()}, {leaf}, {}, /*retain_graph=*/true,
                              /*create_graph=*/true);
      },
      "gradients of gradients are not implemented");
}

}  // namespace oryx::ops::testing
