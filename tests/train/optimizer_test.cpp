#include "train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "train/muon.h"

namespace oryx {
namespace {

ModelConfig small() {
  ModelConfig c = preset("oryx-gdn-tiny");
  c.vocab_size = 32, c.num_hidden_layers = 1, c.hidden_size = 16, c.num_attention_heads = c.num_key_value_heads = 2;
  c.head_dim = c.value_head_dim = 8, c.intermediate_size = 32;
  return c;
}

// The update rule written out, one weight at a time, in double.
TEST(AdamW, FollowsTheFormula) {
  LanguageModel model = LanguageModel::random(small(), 1);
  model.require_gradients(true);
  const OptimizerOptions o{0.9, 0.95, 1e-8, 0.1};
  Optimizer optimizer(model, o);
  const auto specs = weight_specs(model.config());
  std::vector<at::Tensor> w, m, v;
  for (const auto& [name, x] : model.weights()) {
    w.push_back(x.detach().to(at::kDouble));
    m.push_back(w.back() * 0);
    v.push_back(w.back() * 0);
  }
  for (int step = 1; step <= 3; ++step) {
    const double lr = 0.01 * step;
    for (size_t i = 0; i < specs.size(); ++i) {
      const at::Tensor g = at::randn_like(model.weights()[i].second.detach());
      model.weights()[i].second.mutable_grad() = g;
      const at::Tensor gd = g.to(at::kDouble);
      if (specs[i].decay) w[i] = w[i] * (1 - lr * o.weight_decay);
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * gd;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * gd * gd;
      const at::Tensor mh = m[i] / (1 - std::pow(o.beta1, step)), vh = v[i] / (1 - std::pow(o.beta2, step));
      w[i] = w[i] - lr * mh / (vh.sqrt() + o.eps);
    }
    optimizer.step(lr);
  }
  for (size_t i = 0; i < specs.size(); ++i)
    EXPECT_LT((model.weights()[i].second.detach() - w[i]).abs().max().item<double>(), 1e-6) << specs[i].name;
}

class Step : public ::testing::TestWithParam<bool> {
 protected:
  OptimizerOptions options() const {
    OptimizerOptions o;
    o.muon = GetParam();
    return o;
  }
};
INSTANTIATE_TEST_SUITE_P(Optimizer, Step, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Muon" : "AdamW"; });

std::vector<at::Tensor> copies(const std::vector<std::pair<std::string, at::Tensor>>& named) {
  std::vector<at::Tensor> out;
  for (const auto& [name, x] : named) out.push_back(x.detach().clone());
  return out;
}

// Weights, moments and counts after two steps, and after two with gradients that were scaled down before.
TEST_P(Step, ClipsToTheCommonNorm) {
  LanguageModel a = LanguageModel::random(small(), 1), b = a.snapshot();
  Optimizer clips(a, options()), given(b, options());
  for (int step = 0; step < 2; ++step) {
    double sum = 0;
    for (const auto& [name, x] : a.weights()) {
      x.mutable_grad() = at::randn_like(x);
      sum += x.grad().square().sum().item<double>();
    }
    const double norm = std::sqrt(sum), most = step == 0 ? 0.5 : 2 * norm;  // the second is below
    for (size_t i = 0; i < a.weights().size(); ++i)
      b.weights()[i].second.mutable_grad() = a.weights()[i].second.grad() * std::min(1.0, most / norm);
    EXPECT_NEAR(clips.step(0.01, most).item<double>(), norm, 1e-3 * norm);
    EXPECT_NEAR(given.step(0.01).item<double>(), std::min(most, norm), 1e-3 * norm);  // 0: only measured
  }
  for (size_t i = 0; i < a.weights().size(); ++i)
    EXPECT_TRUE(at::allclose(a.weights()[i].second, b.weights()[i].second, 1e-4, 1e-5)) << a.weights()[i].first;
  const auto of_a = copies(clips.state()), of_b = copies(given.state());
  for (size_t i = 0; i < of_a.size(); ++i) EXPECT_TRUE(at::allclose(of_a[i], of_b[i], 1e-3, 1e-8)) << i;
}

TEST_P(Step, ChangesNothingWhereSomethingIsNotFinite) {
  LanguageModel model = LanguageModel::random(small(), 1);
  Optimizer optimizer(model, options());
  const auto set = [&](double first) {
    for (const auto& [name, x] : model.weights()) x.mutable_grad() = at::randn_like(x);
    for (size_t i : {0, 1, 5}) model.weights()[i].second.grad().view(-1)[0].fill_(first);
  };
  set(1);
  optimizer.step(0.01, 0.5);
  const auto weights = copies(model.weights()), state = copies(optimizer.state());
  const double infinite = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const double wrong : {infinite, -infinite, nan})
    for (const bool in_gradient : {true, false})
      for (const double most : {0.0, 0.5}) {
        set(in_gradient ? wrong : 1);
        const at::Tensor loss = at::full({}, in_gradient ? 1 : wrong, at::kFloat);
        EXPECT_EQ(std::isfinite(optimizer.step(0.01, most, loss).item<double>()), !in_gradient);
        const auto now = copies(model.weights()), state_now = copies(optimizer.state());
        for (size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(at::equal(now[i], weights[i])) << i << ' ' << wrong;
        for (size_t i = 0; i < state.size(); ++i) EXPECT_TRUE(at::equal(state_now[i], state[i])) << i << ' ' << wrong;
      }
  set(1);
  optimizer.step(0.01, 0.5, at::full({}, 1, at::kFloat));
  EXPECT_FALSE(at::equal(model.weights()[5].second, weights[5]));
}

using Matrix = std::vector<std::vector<double>>;

Matrix to_matrix(const at::Tensor& x) {
  Matrix m(x.size(0), std::vector<double>(x.size(1)));
  for (int64_t i = 0; i < x.size(0); ++i)
    for (int64_t j = 0; j < x.size(1); ++j) m[i][j] = x[i][j].item<double>();
  return m;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(a.size(), std::vector<double>(b[0].size()));
  for (size_t i = 0; i < c.size(); ++i)
    for (size_t j = 0; j < c[0].size(); ++j)
      for (size_t k = 0; k < b.size(); ++k) c[i][j] += a[i][k] * b[k][j];
  return c;
}

Matrix transposed(const Matrix& a) {
  Matrix t(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[0].size(); ++j) t[j][i] = a[i][j];
  return t;
}

// The iteration as it is written in the paper, without regard to which side is shorter.
Matrix newton_schulz(Matrix x) {
  double norm = 0;
  for (const auto& row : x)
    for (double v : row) norm += v * v;
  for (auto& row : x)
    for (double& v : row) v /= std::sqrt(norm) + 1e-7;
  for (int step = 0; step < 5; ++step) {
    const Matrix A = product(x, transposed(x)), AA = product(A, A);
    Matrix B = A;
    for (size_t i = 0; i < A.size(); ++i)
      for (size_t j = 0; j < A.size(); ++j) B[i][j] = -4.7750 * A[i][j] + 2.0315 * AA[i][j];
    const Matrix Bx = product(B, x);
    for (size_t i = 0; i < x.size(); ++i)
      for (size_t j = 0; j < x[0].size(); ++j) x[i][j] = 3.4445 * x[i][j] + Bx[i][j];
  }
  return x;
}

TEST(Muon, FollowsTheFormula) {
  LanguageModel model = LanguageModel::random(small(), 1);
  model.require_gradients(true);
  OptimizerOptions o;
  o.muon = true, o.momentum = 0.9, o.weight_decay = 0.2;
  Optimizer optimizer(model, o);
  const auto specs = weight_specs(model.config());
  std::vector<size_t> matrices;
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].decay) matrices.push_back(i);
  ASSERT_GE(matrices.size(), 8u);
  std::vector<Matrix> w, m;
  for (size_t i : matrices) {
    w.push_back(to_matrix(model.weights()[i].second.detach()));
    m.emplace_back(w.back().size(), std::vector<double>(w.back()[0].size()));
  }
  for (int step = 1; step <= 3; ++step) {
    const double lr = 0.01 * step;
    for (const auto& [name, x] : model.weights()) x.mutable_grad() = at::randn_like(x.detach());
    for (size_t n = 0; n < matrices.size(); ++n) {
      const Matrix g = to_matrix(model.weights()[matrices[n]].second.grad());
      Matrix nesterov = g;
      for (size_t i = 0; i < g.size(); ++i)
        for (size_t j = 0; j < g[0].size(); ++j) {
          m[n][i][j] = 0.9 * m[n][i][j] + 0.1 * g[i][j];
          nesterov[i][j] = 0.1 * g[i][j] + 0.9 * m[n][i][j];
        }
      const Matrix u = newton_schulz(nesterov);
      const double scale = 0.2 * std::sqrt(std::max<double>(g.size(), g[0].size()));
      for (size_t i = 0; i < g.size(); ++i)
        for (size_t j = 0; j < g[0].size(); ++j) w[n][i][j] = w[n][i][j] * (1 - lr * 0.2) - lr * scale * u[i][j];
    }
    optimizer.step(lr);
  }
  for (size_t n = 0; n < matrices.size(); ++n) {
    const Matrix now = to_matrix(model.weights()[matrices[n]].second.detach());
    double worst = 0;
    for (size_t i = 0; i < now.size(); ++i)
      for (size_t j = 0; j < now[0].size(); ++j) worst = std::max(worst, std::abs(now[i][j] - w[n][i][j]));
    EXPECT_LT(worst, 2e-5) << specs[matrices[n]].name;
  }
}

TEST(Muon, LeavesTheRestToAdamW) {
  LanguageModel a = LanguageModel::random(small(), 1), b = a.snapshot();
  OptimizerOptions muon;
  muon.muon = true;
  Optimizer by_muon(a, muon), by_adamw(b, {});
  for (size_t i = 0; i < a.weights().size(); ++i)
    a.weights()[i].second.mutable_grad() = b.weights()[i].second.mutable_grad() = at::randn_like(a.weights()[i].second);
  by_muon.step(0.01), by_adamw.step(0.01);
  const auto specs = weight_specs(a.config());
  for (size_t i = 0; i < specs.size(); ++i)
    EXPECT_EQ(a.weights()[i].second.equal(b.weights()[i].second), !specs[i].decay) << specs[i].name;
}

TEST(Muon, SingularValuesAreNearOne) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{48, 48}, {16, 64}, {64, 16}, {1, 32}}) {
    const at::Tensor s = at::linalg_svdvals(orthogonalize(at::randn({rows, columns}, at::kDouble)));
    // A square random matrix has singular values near 0, which five steps do not bring all the way.
    const double least = rows == columns ? 0.0 : 0.65;
    EXPECT_GT(s.min().item<double>(), least) << rows;
    EXPECT_LT(s.max().item<double>(), 1.25) << rows;
  }
}

TEST(Muon, TakesMatricesOfOneShapeTogether) {
  using Groups = std::vector<std::vector<size_t>>;
  const std::vector<std::pair<int64_t, int64_t>> shapes{{4, 8}, {8, 4}, {4, 8}, {8, 4}, {4, 8}};
  EXPECT_EQ(muon_groups(shapes, false), (Groups{{0}, {1}, {2}, {3}, {4}}));
  EXPECT_EQ(muon_groups(shapes, true), (Groups{{0, 2, 4}, {1, 3}}));
  const std::pair<int64_t, int64_t> large{1 << 13, 1 << 12};  // two fill a group
  EXPECT_EQ(muon_groups({large, large, large, {1 << 14, 1 << 14}}, true), (Groups{{0, 1}, {2}, {3}}));
}

TEST(Muon, ABatchIsEachOfItsMatrices) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{16, 64}, {64, 16}}) {
    const at::Tensor m = at::randn({3, rows, columns}, at::kDouble), batch = orthogonalize(m);
    for (int64_t i = 0; i < 3; ++i) EXPECT_LT((batch[i] - orthogonalize(m[i])).abs().max().item<double>(), 1e-12);
  }
}

TEST(Optimizer, StateRestoresWhatComesNext) {
  for (const bool muon : {false, true}) {
    OptimizerOptions options;
    options.muon = muon;
    LanguageModel a = LanguageModel::random(small(), 1);
    Optimizer first(a, options);
    for (const auto& [name, x] : a.weights()) x.mutable_grad() = at::randn_like(x);
    first.step(0.01);
    LanguageModel b = a.snapshot();
    Optimizer second(b, options);
    std::map<std::string, at::Tensor> state;
    for (const auto& [name, x] : first.state()) state.emplace(name, x.clone());
    second.load_state(state);
    for (size_t i = 0; i < a.weights().size(); ++i)
      a.weights()[i].second.mutable_grad() = b.weights()[i].second.mutable_grad() =
          at::randn_like(a.weights()[i].second);
    first.step(0.01), second.step(0.01);
    for (size_t i = 0; i < a.weights().size(); ++i)
      EXPECT_TRUE(a.weights()[i].second.equal(b.weights()[i].second)) << a.weights()[i].first;
    state.erase(state.begin());
    EXPECT_THROW(second.load_state(state), InputError);
  }
}

TEST(AdamW, DecaysMatricesAlone) {
  for (const WeightSpec& spec : weight_specs(preset("oryx-mamba2-tiny"))) {
    const bool matrix = spec.name.find("_proj.weight") != std::string::npos;
    EXPECT_EQ(spec.decay, matrix) << spec.name;
  }
}

}  // namespace
}  // namespace oryx
