#include "ops/attention/op.h"

#include <ATen/Parallel.h>

#include "ops/op_testing.h"

namespace oryx::ops::testing {

using AttentionOp = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                   const std::optional<at::Tensor>&, double, double);

const std::vector<at::ScalarType> kTypes{at::kDouble, at::kFloat, at::kBFloat16};

struct AttentionCase {
  std::vector<int64_t> lengths{17, 0, 65};
  int64_t heads = 2, kv_heads = 2, key_dim = 16, value_dim = 16;
  Read read = Read::all;
  double scale = 0.3, rope_base = 0, spread = 1;  // spread multiplies the queries
  bool non_contiguous = false;

  std::string str() const {
    std::string text = "lengths";
    for (int64_t n : lengths) text += " " + std::to_string(n);
    return text + ", heads " + std::to_string(heads) + "/" + std::to_string(kv_heads) + ", dims " +
           std::to_string(key_dim) + "x" + std::to_string(value_dim) + ", read " +
           std::to_string(static_cast<int>(read)) + (non_contiguous ? ", non-contiguous" : "");
  }
  std::optional<at::Tensor> index() const { return read_index(read, total(lengths)); }

  std::vector<Input> inputs() const {
    at::manual_seed(11);
    const int64_t N = total(lengths), R = index() ? index()->numel() : N;
    const auto make = [&](int64_t n, int64_t h, int64_t d) {
      return non_contiguous ? normal({d, n, h}).permute({1, 2, 0}) : normal({n, h, d});
    };
    return {{make(R, heads, key_dim) * spread}, {make(N, kv_heads, key_dim)}, {make(N, kv_heads, value_dim)}};
  }
  std::vector<at::Tensor> tensors(at::ScalarType type) const {
    std::vector<at::Tensor> x;
    for (const auto& input : inputs()) x.push_back(input.value.to(type));
    return x;
  }
  Function function(AttentionOp op) const {
    return
        [op, cu = cu_seqlens(lengths), read = index(), s = scale, base = rope_base](const std::vector<at::Tensor>& x) {
          return std::vector<at::Tensor>{op(x[0], x[1], x[2], cu, read, s, base)};
        };
  }
  void check(AttentionOp op) const {
    for (auto type : kTypes)
      compare(function(op), function(attention_reference), inputs(), type, str() + " " + c10::toString(type));
  }
};

class AttentionPaths : public ::testing::TestWithParam<AttentionOp> {};
INSTANTIATE_TEST_SUITE_P(Attention, AttentionPaths, ::testing::Values(&attention, &attention_aten),
                         [](const auto& info) { return info.index == 0 ? "Kernel" : "Aten"; });

TEST_P(AttentionPaths, Lengths) {
  for (const auto& lengths : ragged_cases()) {
    AttentionCase c;
    c.lengths = lengths, c.key_dim = 8, c.value_dim = 24;
    c.check(GetParam());
  }
}

TEST_P(AttentionPaths, Reads) {
  for (auto read : {Read::sparse, Read::dense})
    for (int64_t kv_heads : {1, 2, 4}) {
      AttentionCase c;
      c.lengths = {65, 0, 130, 3}, c.read = read, c.heads = 4, c.kv_heads = kv_heads;
      c.check(GetParam());
    }
}

TEST_P(AttentionPaths, NothingRead) {
  AttentionCase c;
  const auto x = c.tensors(at::kFloat);
  const auto k = x[1].clone().requires_grad_(true);
  const auto o = GetParam()(x[0].slice(0, 0, 0), k, x[2], cu_seqlens(c.lengths),
                            at::empty({0}, at::TensorOptions(at::kLong)), 1, 0);
  EXPECT_EQ(o.sizes(), (std::vector<int64_t>{0, 2, 16}));
  EXPECT_TRUE(at::equal(torch::autograd::grad({o.sum()}, {k})[0], at::zeros_like(k)));
}

TEST_P(AttentionPaths, HeadsAndDims) {
  for (auto [heads, kv_heads] : {std::pair<int64_t, int64_t>{2, 1}, {4, 1}, {4, 2}, {3, 3}})
    for (auto [kd, vd] : {std::pair<int64_t, int64_t>{8, 8}, {24, 40}, {64, 128}, {13, 5}}) {
      AttentionCase c;
      c.lengths = {66, 9}, c.heads = heads, c.kv_heads = kv_heads, c.key_dim = kd, c.value_dim = vd;
      c.check(GetParam());
    }
  AttentionCase wide;
  wide.lengths = {70}, wide.heads = wide.kv_heads = 1, wide.key_dim = wide.value_dim = 256, wide.scale = 0.06;
  wide.check(GetParam());
}

TEST_P(AttentionPaths, NonContiguous) {
  AttentionCase c;
  c.non_contiguous = true, c.read = Read::dense;
  c.check(GetParam());
}

// Logits up to ten thousands: exponentials of them, or of their differences, are far out of range. Attention is then
// nearly all on one key, and the gradients of q and k are differences of nearly equal numbers, which the naive order of
// operations happens to make exactly zero: for these, a few roundings of those numbers are allowed beside the rule.
TEST_P(AttentionPaths, LargeLogits) {
  for (double scale : {1.0, -1.0})
    for (auto type : kTypes) {
      AttentionCase c;
      c.lengths = {130, 5}, c.scale = scale, c.spread = 1e3;
      const auto inputs = c.inputs();
      const at::Tensor &q = inputs[0].value, &k = inputs[1].value, &v = inputs[2].value;
      const double logit = at::einsum("nhd,mhd->hnm", {q, k}).abs().max().item<double>();
      EXPECT_GT(logit, 1e4);
      const std::vector<at::Tensor> cotangent{normal({135, 2, 16}).to(type).to(at::kDouble)};
      const auto exact = evaluate(c.function(attention_reference), inputs, type, at::kDouble, cotangent);
      const auto naive = evaluate(c.function(attention_reference), inputs, type, type, cotangent);
      const auto got = evaluate(c.function(GetParam()), inputs, type, type, cotangent);
      // In fp64 the reference is no more exact than the rest: a rounded logit is a relative error of the result.
      const double floor = type == at::kDouble ? 0x1p-51 * logit : rounding_floor(type);
      expect_as_good(got.outputs[0], naive.outputs[0], exact.outputs[0], floor, "output");
      expect_as_good(got.gradients[2], naive.gradients[2], exact.gradients[2], floor, "gradient of v");
      const double unit = type == at::kDouble ? 0x1p-52 : type == at::kFloat ? 0x1p-23 : 0x1p-16;
      const double term = at::einsum("nhd,mhd->hnm", {cotangent[0], v}).abs().max().item<double>();
      for (int i : {0, 1}) {
        const auto largest = [](const at::Tensor& x) { return x.abs().max().item<double>(); };
        const double error = largest(got.gradients[i] - exact.gradients[i]);
        const double rule = 2 * largest(naive.gradients[i] - exact.gradients[i]) + floor * largest(exact.gradients[i]);
        EXPECT_LE(error, rule + 4 * unit * term * largest(i == 0 ? k : q)) << type << " gradient " << i;
      }
    }
}

// A key so far below the others that its logit leaves the range of exp, and one so far above that nothing else counts.
TEST_P(AttentionPaths, Spreads) {
  for (auto type : kTypes) {
    AttentionCase c;
    c.lengths = {100}, c.scale = 1;
    auto x = c.tensors(type);
    x[0].fill_(1);
    x[1].fill_(0);
    x[1][0].fill_(-1e30);
    x[1][70].fill_(1e30);
    for (auto& t : x) t.requires_grad_(true);
    const auto o = c.function(GetParam())(x)[0];
    for (const auto& g : torch::autograd::grad({o.sum()}, x)) EXPECT_TRUE(at::isfinite(g).all().item<bool>());
    EXPECT_TRUE(at::equal(o[0], x[2][0]));     // the only key, however low
    EXPECT_TRUE(at::allclose(o[1], x[2][1]));  // beside it the low key has no weight
    EXPECT_TRUE(at::equal(o[70], x[2][70]));
    EXPECT_TRUE(at::equal(o[99], x[2][70]));
  }
}

// One or a few rows against a long cache, whose keys are cut into segments.
TEST_P(AttentionPaths, Decode) {
  for (auto [heads, kv_heads, rows] :
       {std::tuple<int64_t, int64_t, int64_t>{2, 2, 1}, {4, 1, 1}, {8, 1, 1}, {2, 1, 3}, {4, 2, 30}, {4, 2, 33}}) {
    AttentionCase c;
    c.lengths = {1500, 2100};
    const auto cu = cu_seqlens(c.lengths);
    at::manual_seed(5);
    std::vector<int64_t> read;
    for (int64_t end : {1500, 3600})
      for (int64_t r = rows; r > 0; --r) read.push_back(end - 45 * r);
    const auto index = at::tensor(read, at::kLong);
    const std::vector<Input> inputs{
        {normal({index.numel(), heads, 24})}, {normal({3600, kv_heads, 24})}, {normal({3600, kv_heads, 40})}};
    const auto with = [&](AttentionOp op) -> Function {
      return [=](const std::vector<at::Tensor>& x) {
        return std::vector<at::Tensor>{op(x[0], x[1], x[2], cu, index, 0.5, 0)};
      };
    };
    for (auto type : kTypes)
      compare(with(GetParam()), with(attention_reference), inputs, type,
              std::to_string(rows) + " rows, heads " + std::to_string(heads) + "/" + std::to_string(kv_heads) + " " +
                  c10::toString(type));
  }
}

// Rotary embedding inside: prefill, and few rows against a cache, where keys are turned while they are read.
TEST_P(AttentionPaths, Rope) {
  for (auto [heads, kv_heads, rows, kd] : {std::tuple<int64_t, int64_t, int64_t, int64_t>{2, 2, 1, 64},
                                           {4, 1, 2, 128},
                                           {4, 2, 3, 24},
                                           {2, 1, 1, 10},
                                           {4, 2, 0, 32}}) {
    AttentionCase c;
    c.lengths = {700, 3, 90}, c.heads = heads, c.kv_heads = kv_heads, c.key_dim = kd, c.value_dim = 20;
    const auto cu = cu_seqlens(c.lengths);
    std::optional<at::Tensor> index;
    std::vector<int64_t> read;
    for (int64_t end : {700, 703, 793})
      for (int64_t r = rows; r > 0; --r) read.push_back(end - r);
    if (rows > 0) index = at::tensor(read, at::kLong);
    at::manual_seed(6);
    const std::vector<Input> inputs{{normal({rows > 0 ? index->numel() : 793, heads, kd})},
                                    {normal({793, kv_heads, kd})},
                                    {normal({793, kv_heads, 20})}};
    const auto with = [&](AttentionOp op) -> Function {
      return [=](const std::vector<at::Tensor>& x) {
        return std::vector<at::Tensor>{op(x[0], x[1], x[2], cu, index, 0.3, 1e4)};
      };
    };
    auto constants = inputs;
    for (auto& input : constants) input.grad = false;
    for (auto type : kTypes) {
      const auto name = std::to_string(rows) + " rows, dim " + std::to_string(kd) + " " + c10::toString(type);
      compare(with(GetParam()), with(attention_reference), inputs, type, name);
      compare(with(GetParam()), with(attention_reference), constants, type, name + ", no gradients");
    }
  }
}

// Central differences in fp64, independent of any autograd.
TEST_P(AttentionPaths, FiniteDifferences) {
  AttentionCase c;
  c.lengths = {5, 70}, c.kv_heads = 1, c.key_dim = 3, c.value_dim = 2, c.read = Read::dense;
  const auto function = c.function(GetParam());
  std::vector<at::Tensor> leaves;
  for (const auto& x : c.tensors(at::kDouble)) leaves.push_back(x.clone().requires_grad_(true));
  const at::Tensor weight = normal({leaves[0].size(0), 2, 2});
  const auto loss = [&](const std::vector<at::Tensor>& x) { return (function(x)[0] * weight).sum(); };
  const auto gradients = torch::autograd::grad({loss(leaves)}, leaves);
  c10::NoGradGuard no_grad;
  for (size_t i = 0; i < leaves.size(); ++i) {
    const at::Tensor direction = normal(leaves[i].sizes());
    auto plus = leaves, minus = leaves;
    plus[i] = leaves[i] + 1e-6 * direction;
    minus[i] = leaves[i] - 1e-6 * direction;
    const double numeric = (loss(plus) - loss(minus)).item<double>() / 2e-6;
    EXPECT_NEAR((gradients[i] * direction).sum().item<double>(), numeric, 1e-6 * (1 + std::abs(numeric))) << i;
  }
}

// Each input's gradient alone is the same as beside the others.
TEST_P(AttentionPaths, GradientOfOneInput) {
  AttentionCase c;
  const auto gradients = [&](const std::vector<bool>& wanted) {
    auto x = c.tensors(at::kFloat);
    std::vector<at::Tensor> leaves;
    for (size_t i = 0; i < 3; ++i)
      if (wanted[i]) leaves.push_back(x[i].requires_grad_(true));
    return torch::autograd::grad({c.function(GetParam())(x)[0].square().sum()}, leaves);
  };
  const auto all = gradients({true, true, true});
  EXPECT_TRUE(at::equal(gradients({true, false, false})[0], all[0]));
  EXPECT_TRUE(at::equal(gradients({false, true, false})[0], all[1]));
  EXPECT_TRUE(at::equal(gradients({false, false, true})[0], all[2]));
}

std::vector<at::Tensor> outputs_and_gradients(const AttentionCase& c, std::vector<at::Tensor> x) {
  for (auto& t : x) t = t.detach().clone().requires_grad_(true);
  const auto o = c.function(attention)(x)[0];
  auto results = torch::autograd::grad({o.square().sum()}, x);
  results.push_back(o.detach());
  return results;
}

TEST(Attention, SameBitsForAnyThreads) {
  for (auto type : kTypes) {
    AttentionCase c;
    c.lengths = {400, 30}, c.heads = 2, c.kv_heads = 1;
    const auto x = c.tensors(type);
    const int threads = at::get_num_threads();
    std::vector<std::vector<at::Tensor>> runs;
    for (int n : {1, 2, 2, 5}) {
      at::set_num_threads(n);
      runs.push_back(outputs_and_gradients(c, x));
    }
    at::set_num_threads(threads);
    for (const auto& run : runs)
      for (size_t i = 0; i < run.size(); ++i) EXPECT_TRUE(at::equal(run[i], runs[0][i])) << type << " " << i;
  }
}

TEST(Attention, SequenceAloneAsInBatch) {
  AttentionCase batch, alone;
  batch.lengths = {70, 0, 333, 130}, batch.heads = 4, alone.lengths = {333}, alone.heads = 4;
  for (auto type : kTypes) {
    const auto x = batch.tensors(type);
    const auto whole = outputs_and_gradients(batch, x);
    const auto part =
        outputs_and_gradients(alone, {x[0].slice(0, 70, 403), x[1].slice(0, 70, 403), x[2].slice(0, 70, 403)});
    for (size_t i = 0; i < part.size(); ++i) EXPECT_TRUE(at::equal(part[i], whole[i].slice(0, 70, 403))) << type << i;
  }
}

// Of {q, k, v} that the backward pass computes again: the bits of attention itself, and nothing kept but the inputs.
TEST(Attention, OfAFunction) {
  using Tensors = std::vector<at::Tensor>;
  AttentionCase c;
  c.heads = 4, c.read = Read::dense;
  const at::Tensor cu = cu_seqlens(c.lengths), factor = at::full({c.heads, 1}, 1.5, at::kFloat);
  for (const double rope_base : {0.0, 100.0})
    for (const size_t fixed : {size_t{0}, size_t{1}, size_t{2}, size_t{4}}) {  // what wants no gradient; 4: all want it
      std::vector<c10::weak_intrusive_ptr<c10::TensorImpl>> watched;
      const auto function = [&watched](const Tensors& in) {
        Tensors out{in[0] * in[3], in[1].sin(), in[2]};
        for (const at::Tensor& x : {out[0], out[1]}) watched.emplace_back(x.getIntrusivePtr());
        return out;
      };
      Tensors inputs = c.tensors(at::kFloat);
      inputs.push_back(factor);
      for (size_t i = 0; i < inputs.size(); ++i) inputs[i] = inputs[i].clone().requires_grad_(i != fixed);
      const auto run = [&](bool again) {
        if (again) return attention_of(function, inputs, cu, c.index(), c.scale, rope_base);
        const Tensors qkv = function(inputs);
        return attention(qkv[0], qkv[1], qkv[2], cu, c.index(), c.scale, rope_base);
      };
      const auto gradients = [&](const at::Tensor& o) {
        for (at::Tensor& x : inputs) x.mutable_grad() = at::Tensor();
        o.backward(o.detach().cos());
        Tensors out;
        for (const at::Tensor& x : inputs) out.push_back(x.grad().defined() ? x.grad().clone() : at::Tensor());
        return out;
      };
      at::Tensor o = run(true);
      for (const auto& x : watched) EXPECT_TRUE(x.expired());
      const Tensors got = gradients(o);
      for (const auto& x : watched) EXPECT_TRUE(x.expired());
      const at::Tensor plain = run(false);
      const Tensors want = gradients(plain);
      EXPECT_TRUE(at::equal(o, plain));
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_EQ(got[i].defined(), i != fixed) << i;
        if (i == fixed) continue;
        EXPECT_TRUE(at::equal(got[i], want[i])) << i << " rope " << rope_base << " fixed " << fixed;
      }
      const c10::weak_intrusive_ptr<c10::TensorImpl> output(o.getIntrusivePtr());
      o = at::Tensor();
      EXPECT_TRUE(output.expired());  // the node does not hold the output that holds the node
    }
}

TEST(Attention, ThroughTheDispatcherWithoutGradients) {
  AttentionCase c;
  const auto x = c.tensors(at::kFloat);
  const auto with_graph = c.function(attention)({x[0].clone().requires_grad_(true), x[1], x[2]})[0];
  EXPECT_TRUE(with_graph.requires_grad());
  c10::InferenceMode inference;
  EXPECT_TRUE(at::equal(c.function(attention)(x)[0], with_graph));
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

TEST_P(AttentionPaths, Errors) {
  AttentionCase c;
  c.lengths = {4, 3};
  const auto x = c.tensors(at::kFloat);
  const at::Tensor cu = cu_seqlens({4, 3});
  const auto with = [&](size_t i, const at::Tensor& other, const at::Tensor& seqlens,
                        std::optional<at::Tensor> read = {}, double scale = 1, double base = 0) {
    return [=, op = GetParam()] {
      auto y = x;
      if (i < y.size()) y[i] = other;
      op(y[0], y[1], y[2], seqlens, read, scale, base);
    };
  };
  expect_error(with(0, x[0].slice(0, 0, 6), cu), "attention: q must have shape [7, any, 16]");
  expect_error(with(0, x[0].slice(1, 0, 1), cu), "q must have a multiple of k's 2 heads");
  expect_error(with(0, x[0].to(at::kInt), cu), "q must be float32, bfloat16 or float64");
  expect_error(with(1, x[1].select(1, 0), cu), "k must have shape [any, any, any]");
  expect_error(with(1, x[1].slice(2, 0, 3), cu), "q must have shape [7, any, 3]");
  expect_error(with(1, x[1].to(at::kDouble), cu), "k must be Float");
  expect_error(with(2, x[2].slice(0, 0, 3), cu), "v must have shape [7, 2, any]");
  expect_error(with(2, x[2].slice(2, 0, 0), cu), "head dims of at least 1");
  expect_error(with(2, x[2].to(at::kBFloat16), cu), "v must be Float");
  expect_error(with(9, {}, cu_seqlens({4, 4})), "cu_seqlens must run from 0 to 7");
  expect_error(with(9, {}, cu.to(at::kLong)), "cu_seqlens must be int32");
  expect_error(with(9, {}, at::tensor({0, 5, 4, 7}, at::kInt)), "cu_seqlens must not decrease");
  expect_error(with(0, x[0].slice(0, 0, 2), cu, at::tensor({1, 7}, at::kLong)), "read_index must lie in [0, 7)");
  expect_error(with(0, x[0].slice(0, 0, 2), cu, at::tensor({3, 3}, at::kLong)), "read_index must ascend");
  expect_error(with(0, x[0].slice(0, 0, 2), cu, at::tensor({1, 2}, at::kInt)), "read_index must be int64");
  expect_error(with(9, {}, cu, {}, std::numeric_limits<double>::infinity()), "scale must be finite");
  expect_error(with(9, {}, cu, {}, 1, -1), "rope_base must be 0 or positive");
  const at::Tensor odd = x[1].slice(2, 0, 15);
  expect_error([&] { GetParam()(x[0].slice(2, 0, 15), odd, x[2], cu, {}, 1, 1e4); },
               "an even key head dim, but it is 15");
  const at::Tensor q = x[0].clone().requires_grad_(true);
  expect_error(
      [&] {
        torch::autograd::grad({GetParam()(q, x[1], x[2], cu, {}, 1, 0).sum()}, {q}, {}, /*retain_graph=*/true,
                              /*create_graph=*/true);
      },
      "gradients of gradients are not implemented");
}

}  // namespace oryx::ops::testing
