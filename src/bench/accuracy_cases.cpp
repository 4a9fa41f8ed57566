#include "bench/accuracy_cases.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>

#include "ops/attention/op.h"
#include "ops/gated_rms_norm/op.h"
#include "ops/linear_cross_entropy/op.h"
#include "ops/rms_norm/op.h"
#include "ops/rope/op.h"
#include "ops/short_conv/op.h"

namespace oryx::bench {

using at::Tensor;
using Tensors = std::vector<Tensor>;

Tensor boundaries(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> cu{0};
  for (const int64_t n : lengths) cu.push_back(cu.back() + static_cast<int32_t>(n));
  return at::tensor(cu, at::kInt);
}

Tensor normal(at::IntArrayRef sizes) {
  return at::randn(sizes, at::kDouble);
}

Tensor unit_rows(const Tensor& x) {
  return x / (x.square().sum(-1, true) + 1e-6).sqrt();
}

std::vector<Subject> attention_subjects(bool quick) {
  std::vector<Subject> out;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& lengths, int64_t heads, int64_t kv_heads,
                       int64_t dim, double scale, bool gradients, bool decode = false) {
    int64_t tokens = 0;
    for (const int64_t n : lengths) tokens += n;
    std::optional<Tensor> read;
    if (decode) read = at::tensor({tokens - 1}, at::kLong);
    const auto with = [=, cu = boundaries(lengths)](decltype(&ops::attention) op) -> Function {
      return [=](const Tensors& x) { return Tensors{op(x[0], x[1], x[2], cu, read, scale, decode ? 1e4 : 0)}; };
    };
    out.push_back({.op = "attention",
                   .name = name,
                   .fast = with(ops::attention),
                   .reference = with(ops::attention_reference),
                   .inputs = {{normal({decode ? 1 : tokens, heads, dim}), gradients},
                              {unit_rows(normal({tokens, kv_heads, dim})), gradients},
                              {normal({tokens, kv_heads, dim}), gradients}},
                   .output_names = {"o"},
                   .input_names = {"q", "k", "v"}});
  };
  const int64_t some = quick ? 70 : 300, more = quick ? 80 : 1025, most = quick ? 96 : 8192;
  add("lengths 1, 15, 63, 64, 65, 0, 130", {1, 15, 63, 64, 65, 0, 130}, 4, 2, 64, 1, true);
  add("dim 40", {some, 33}, 2, 2, 40, 1, true);
  add("dim 128", {some}, 2, 2, 128, 1, true);
  add("logits to 60", {some}, 2, 2, 64, 20, true);
  add("T " + std::to_string(more), {more}, 1, 1, 16, 1, true);
  add("T " + std::to_string(most) + ", forward", {most}, 1, 1, 16, 1, false);
  add("T " + std::to_string(most) + ", one row, RoPE", {most}, 8, 2, 64, 1, false, /*decode=*/true);
  return out;
}

std::vector<Subject> loss_subjects(bool quick) {
  std::vector<Subject> out;
  const auto add = [&](const std::string& name, int64_t tokens, int64_t dim, int64_t words, double scale) {
    Tensor targets = at::randint(words, {tokens}, at::kLong);
    for (int64_t n = 3; n < tokens; n += 5) targets[n] = -100;
    const auto with = [=](decltype(&ops::linear_cross_entropy) op) -> Function {
      return [=](const Tensors& x) { return Tensors{op(x[0], x[1], targets, -100)}; };
    };
    out.push_back({.op = "linear_cross_entropy",
                   .name = name,
                   .fast = with(ops::linear_cross_entropy),
                   .reference = with(ops::linear_cross_entropy_reference),
                   .inputs = {{normal({tokens, dim})}, {normal({words, dim}) * scale}},
                   .output_names = {"loss"},
                   .input_names = {"h", "weight"}});
  };
  add("N 65, D 64, V 1001", 65, 64, 1001, 0.1);
  add("logits to 20", 65, 64, 1001, 0.6);
  add("logits to 200", 65, 64, 1001, 5);
  if (!quick) add("N 1100, D 8, V 2500", 1100, 8, 2500, 0.3);
  return out;
}

namespace {

std::vector<Subject> short_conv_subjects(int64_t some) {
  std::vector<Subject> out;
  for (const char* activation : {"none", "silu"}) {
    const std::vector<int64_t> lengths{1, 3, 0, 129, some};
    const auto with = [=, cu = boundaries(lengths)](decltype(&ops::short_conv) op) -> Function {
      return [=](const Tensors& x) {
        const auto [y, state] = op(x[0], x[1], cu, x[2], activation);
        return Tensors{y, state};
      };
    };
    out.push_back({.op = "short_conv",
                   .name = std::string("C 72, W 4, ") + activation,
                   .fast = with(ops::short_conv),
                   .reference = with(ops::short_conv_reference),
                   .inputs = {{normal({133 + some, 72})}, {normal({72, 4})}, {normal({5, 72, 3})}},
                   .output_names = {"y", "final_state"},
                   .input_names = {"x", "weight", "initial_state"}});
  }
  return out;
}

std::vector<Subject> rope_subjects(int64_t some) {
  std::vector<Subject> out;
  for (const int64_t first : {0, 1000000}) {
    const Tensor positions = at::arange(some, at::kLong) + first;
    const auto with = [=](decltype(&ops::rope) op) -> Function {
      return [=](const Tensors& x) { return Tensors{op(x[0], positions, 1e4)}; };
    };
    out.push_back({.op = "rope",
                   .name = "positions from " + std::to_string(first),
                   .fast = with(ops::rope),
                   .reference = with(ops::rope_reference),
                   .inputs = {{normal({some, 2, 80})}},
                   .output_names = {"y"},
                   .input_names = {"x"}});
  }
  return out;
}

// The norms of rows of usual size, and of rows as small as eps.
std::vector<Subject> norm_subjects(const std::string& op, int64_t some) {
  std::vector<Subject> out;
  for (const double size : {1.0, 1e-3}) {
    Subject s{.op = op,
              .name = size == 1 ? "dim 72" : "dim 72, mean square below eps",
              .fast = {},
              .reference = {},
              .inputs = {{normal({some, 2, 72}) * size}, {normal({72})}},
              .output_names = {"y"},
              .input_names = {"x", "weight"}};
    if (op == "rms_norm") {
      const auto with = [](decltype(&ops::rms_norm) norm) -> Function {
        return [=](const Tensors& x) { return Tensors{norm(x[0], x[1], 1e-5, 1.0, std::nullopt)}; };
      };
      s.fast = with(ops::rms_norm), s.reference = with(ops::rms_norm_reference);
    } else {
      const auto with = [](decltype(&ops::gated_rms_norm) norm) -> Function {
        return [=](const Tensors& x) { return Tensors{norm(x[0], x[2], x[1], 1e-5)}; };
      };
      s.fast = with(ops::gated_rms_norm), s.reference = with(ops::gated_rms_norm_reference);
      s.inputs.push_back({normal({some, 2, 72}) * 3});
      s.input_names.emplace_back("gate");
    }
    out.push_back(std::move(s));
  }
  return out;
}

}  // namespace

std::vector<Subject> pointwise_subjects(const std::string& op, bool quick) {
  const int64_t some = quick ? 40 : 600;
  if (op == "short_conv") return short_conv_subjects(some);
  if (op == "rope") return rope_subjects(some);
  return norm_subjects(op, some);
}

}  // namespace oryx::bench
