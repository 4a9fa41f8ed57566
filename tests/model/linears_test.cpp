#include "model/linears.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/rms_norm/op.h"

namespace oryx {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

Tensor normal(at::IntArrayRef sizes, at::ScalarType type = at::kDouble) {
  return at::randn(sizes, at::kDouble).to(type).requires_grad_(true);
}

Tensor indices(const std::vector<int64_t>& x) {
  return at::tensor(x, at::kLong);
}

// Seven rows of five, of which the second and third layer read four and three.
struct Case {
  Tensor x, scale;
  std::vector<Linear> layers;
  Tensor order = indices({0, 4, 1, 5, 2, 3, 6});

  explicit Case(at::ScalarType type = at::kDouble) : x(normal({7, 5}, type)), scale(normal({5}, type)) {
    layers.push_back({normal({3, 5}, type), std::nullopt});
    layers.push_back({normal({4, 5}, type), indices({0, 2, 4, 5})});
    layers.push_back({normal({2, 5}, type), indices({1, 3, 6})});
    layers.push_back({normal({6, 5}, type), std::nullopt});
  }
  Tensors leaves() const {
    Tensors all{x, scale};
    for (const Linear& layer : layers) all.push_back(layer.weight);
    return all;
  }
  static Tensor function(const Tensors& in) { return ops::rms_norm(in[0], in[1], 1e-5); }
  Tensors run(const std::optional<Tensor>& order) const { return linears(function, {x, scale}, layers, order); }
  Tensors plainly() const {
    const Tensor h = function({x, scale});
    Tensors out;
    for (const Linear& layer : layers)
      out.push_back((layer.rows ? h.index_select(0, *layer.rows) : h).matmul(layer.weight.t()));
    return out;
  }
};

Tensors gradients(const Tensors& outputs, const Tensors& leaves, const std::vector<size_t>& used) {
  Tensor loss = at::zeros({}, outputs[0].options());
  for (const size_t i : used) loss = loss + (outputs[i] * outputs[i].sin()).sum();
  return torch::autograd::grad({loss}, leaves, {}, std::nullopt, false, /*allow_unused=*/true);
}

void expect_same(const Tensors& got, const Tensors& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].defined(), want[i].defined()) << i;
    if (!want[i].defined()) continue;
    EXPECT_TRUE(at::allclose(got[i], want[i], 1e-12, 1e-12)) << i;
  }
}

TEST(Linears, AgreeWithTheirDefinition) {
  at::manual_seed(0);
  const Case c;
  const Tensors plain = c.plainly();
  for (const auto& order : {std::optional<Tensor>(), std::optional(c.order)}) {
    const Tensors out = c.run(order);
    expect_same(out, plain);
    // The loss need not read all of them.
    for (const std::vector<size_t>& used :
         std::vector<std::vector<size_t>>{{0, 1, 2, 3}, {1, 2}, {1, 3}, {2}, {0}, {3}})
      expect_same(gradients(c.run(order), c.leaves(), used), gradients(c.plainly(), c.leaves(), used));
  }
}

TEST(Linears, GiveGradientsToThoseThatWantThem) {
  at::manual_seed(1);
  Case c;
  c.x.requires_grad_(false), c.scale.requires_grad_(false), c.layers[1].weight.requires_grad_(false);
  const Tensors wanting{c.layers[0].weight, c.layers[2].weight};
  expect_same(gradients(c.run(c.order), wanting, {0, 1, 2}), gradients(c.plainly(), wanting, {0, 1, 2}));
  for (Linear& layer : c.layers) layer.weight.requires_grad_(false);
  EXPECT_FALSE(c.run(c.order)[0].requires_grad());
}

TEST(Linears, KeepNeitherTheInputNorNarrowWeights) {
  at::manual_seed(2);
  const Case c(at::kFloat);
  const auto function = [](const Tensors& in) { return ops::rms_norm(in[0], in[1], 1e-5, 1.0, at::kBFloat16); };
  const Tensors out = linears(function, {c.x, c.scale}, c.layers, c.order);
  EXPECT_EQ(out[0].scalar_type(), at::kBFloat16);
  const Tensors got = gradients(out, c.leaves(), {0, 1, 2, 3});
  const Tensors want = gradients(c.plainly(), c.leaves(), {0, 1, 2, 3});
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].scalar_type(), at::kFloat);
    const auto error = (got[i] - want[i]).abs().max().item<double>(), size = want[i].abs().max().item<double>();
    EXPECT_LT(error, 0.05 * size) << i;
  }
}

// A step of a residual stream: the sum goes on, in two places here, and its norm is what the layers read.
TEST(NormedLinears, AgreeWithTheirDefinition) {
  at::manual_seed(3);
  const Case c;
  const Tensor delta = normal({7, 5});
  Tensors leaves = c.leaves();
  leaves.push_back(delta);
  const auto fused = [&](const std::optional<Tensor>& order) {
    auto [sum, out] = normed_linears(c.x, delta, c.scale, 1e-5, c.layers, order);
    out.push_back(sum), out.push_back(sum * 2);
    return out;
  };
  const auto plainly = [&] {
    Case stepped = c;
    stepped.x = c.x + delta;
    Tensors out = stepped.plainly();
    out.push_back(stepped.x), out.push_back(stepped.x * 2);
    return out;
  };
  for (const auto& order : {std::optional<Tensor>(), std::optional(c.order)}) {
    expect_same(fused(order), plainly());
    // Of all, of the layers alone, of the sum alone.
    for (const std::vector<size_t>& used :
         std::vector<std::vector<size_t>>{{0, 1, 2, 3, 4, 5}, {0, 2, 4}, {1, 2}, {0}, {4}, {4, 5}}) {
      const Tensors got = gradients(fused(order), leaves, used), want = gradients(plainly(), leaves, used);
      for (size_t i = 0; i < got.size(); ++i) {
        const Tensor zeros = at::zeros_like(leaves[i]);
        EXPECT_TRUE(at::allclose(got[i].defined() ? got[i] : zeros, want[i].defined() ? want[i] : zeros, 1e-12, 1e-12))
            << i;
      }
    }
  }
}

TEST(NormedLinears, DoNotOutliveTheirGraph) {
  at::manual_seed(4);
  const Case c;
  c10::weak_intrusive_ptr<c10::TensorImpl> watched = [&] {
    const auto [sum, out] = normed_linears(c.x, normal({7, 5}), c.scale, 1e-5, c.layers, c.order);
    return c10::weak_intrusive_ptr<c10::TensorImpl>(sum.getIntrusivePtr());
  }();
  EXPECT_TRUE(watched.expired());  // no node holds the sum that holds the node
}

TEST(Linears, RefuseGradientsOfGradients) {
  const Case c;
  const Tensor loss = c.run(c.order)[0].sum();
  EXPECT_THROW(torch::autograd::grad({loss}, {c.x}, {}, true, /*create_graph=*/true), c10::Error);
}

}  // namespace
}  // namespace oryx
