#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>

#include <cmath>

#include "bench/accuracy_cases.h"
#include "ops/gated_delta_rule/op.h"
#include "ops/ssd/op.h"

namespace oryx::bench {
namespace {

using at::Tensor;
using Recurrence = decltype(&ops::ssd);

int64_t sum(const std::vector<int64_t>& lengths) {
  int64_t total = 0;
  for (const int64_t n : lengths) total += n;
  return total;
}

struct Shape {
  std::vector<int64_t> lengths;
  int64_t heads = 2, kv_heads = 2, key_dim = 64, value_dim = 64;
  bool initial_state = false;
};

// `g` and `write` (beta or dt) are drawn log-uniformly from [low, high], g with the sign of a decay.
struct Range {
  double low, high;
  Tensor draw(at::IntArrayRef sizes) const {
    return at::exp(at::rand(sizes, at::kDouble) * (std::log(high) - std::log(low)) + std::log(low));
  }
};

Subject subject(const std::string& op, const std::string& name, const Shape& s, const Tensor& keys, const Tensor& g,
                const Tensor& write) {
  const bool delta = op == "gated_delta_rule";
  const auto with = [cu = boundaries(s.lengths)](Recurrence recurrence) -> Function {
    return [=](const std::vector<Tensor>& x) {
      const auto [o, state] = recurrence(x[0], x[1], x[2], x[3], x[4], cu,
                                         x[5].defined() ? std::optional(x[5]) : std::nullopt, std::nullopt);
      return std::vector{o, state};
    };
  };
  const int64_t tokens = sum(s.lengths);
  const Tensor state =
      s.initial_state ? normal({static_cast<int64_t>(s.lengths.size()), s.kv_heads, s.key_dim, s.value_dim}) : Tensor();
  return {.op = op,
          .name = name,
          .fast = with(delta ? ops::gated_delta_rule : ops::ssd),
          .reference = with(delta ? ops::gated_delta_rule_reference : ops::ssd_reference),
          .inputs = {{unit_rows(normal({tokens, s.heads, s.key_dim}))},
                     {keys},
                     {normal({tokens, s.kv_heads, s.value_dim})},
                     {g, true, true},
                     {write, true, true},
                     {state, s.initial_state, true}},
          .output_names = {"o", "final_state"},
          .input_names = {"q", "k", "v", "g", delta ? "beta" : "dt", "initial_state"}};
}

}  // namespace

std::vector<Subject> recurrence_subjects(const std::string& op, bool quick) {
  const int64_t many = quick ? 96 : 8192, some = quick ? 70 : 300;
  std::vector<Subject> out;
  const auto add = [&](const std::string& name, const Shape& s, Range decay, Range write) {
    const int64_t tokens = sum(s.lengths);
    const Tensor keys = unit_rows(normal({tokens, s.kv_heads, s.key_dim}));
    out.push_back(subject(op, name, s, keys, -decay.draw({tokens, s.kv_heads}), write.draw({tokens, s.kv_heads})));
  };
  const Range usual{1e-3, 1.0}, any{0.05, 1.0};
  add("lengths 1, 15, 63, 64, 65, 0, 130", {.lengths = {1, 15, 63, 64, 65, 0, 130}, .heads = 4, .initial_state = true},
      usual, any);
  add("dims 40 x 24", {.lengths = {some, 33}, .key_dim = 40, .value_dim = 24, .initial_state = true}, usual, any);
  add("dims 128 x 128", {.lengths = {some}, .key_dim = 128, .value_dim = 128}, usual, any);
  add("decay 15 to 20", {.lengths = {some}, .initial_state = true}, {15, 20}, any);
  add("T " + std::to_string(many) + ", decay 1e-4",
      {.lengths = {many}, .heads = 1, .kv_heads = 1, .key_dim = 16, .value_dim = 16}, {1e-4, 1e-4}, any);

  const auto without_decay = [&](const std::string& name, const Shape& s, const Tensor& keys) {
    const auto gates = [&](double value) { return at::full({sum(s.lengths), s.kv_heads}, value, at::kDouble); };
    out.push_back(subject(op, name, s, keys, gates(0), gates(1)));
  };
  const std::string gate = op == "ssd" ? ", dt 1, no decay" : ", beta 1, no decay";
  const Shape wide{.lengths = {some}}, narrow{.lengths = {some}, .key_dim = 8, .value_dim = 8};
  const Tensor one = normal({1, wide.kv_heads, wide.key_dim});
  without_decay("equal keys" + gate, wide, unit_rows(one).expand({some, -1, -1}).contiguous());
  without_decay("nearly equal keys" + gate, wide, unit_rows(one + 0.05 * normal({some, wide.kv_heads, wide.key_dim})));
  without_decay("keys of 8 dims" + gate, narrow, unit_rows(normal({some, narrow.kv_heads, narrow.key_dim})));
  return out;
}

}  // namespace oryx::bench
