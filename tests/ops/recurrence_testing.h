#pragma once

// The cases of gated_delta_rule and ssd, which have one signature.

#include <ATen/Parallel.h>

#include <string>

#include "ops/op_testing.h"

namespace oryx::ops::testing {

using RecurrenceOp = std::tuple<at::Tensor, at::Tensor> (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                            const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                            const std::optional<at::Tensor>&,
                                                            const std::optional<at::Tensor>&);

struct RecurrenceCase {
  std::vector<int64_t> lengths{17, 0, 65};
  int64_t heads = 2, kv_heads = 2, key_dim = 16, value_dim = 16;
  Read read = Read::all;
  bool initial = true;
  double decay_low = 1e-3, decay_high = 0.2;  // -g is drawn log-uniformly
  bool non_contiguous = false;

  std::string str() const {
    std::string text = "lengths";
    for (int64_t n : lengths) text += " " + std::to_string(n);
    return text + ", heads " + std::to_string(heads) + "/" + std::to_string(kv_heads) + ", dims " +
           std::to_string(key_dim) + "x" + std::to_string(value_dim) + ", read " +
           std::to_string(static_cast<int>(read)) + (initial ? ", initial state" : "") +
           (non_contiguous ? ", non-contiguous" : "");
  }

  std::vector<Input> inputs() const {
    at::manual_seed(7);
    const int64_t N = total(lengths), B = static_cast<int64_t>(lengths.size());
    const auto index = read_index(read, N);
    const int64_t R = index ? index->numel() : N;
    const auto unit = [](at::Tensor x) { return x / (x.square().sum(-1, true) + 1e-6).sqrt(); };
    const auto make = [&](at::IntArrayRef shape) {
      if (!non_contiguous) return normal(shape);
      return normal({shape[2], shape[0], shape[1]}).permute({1, 2, 0});
    };
    at::Tensor q = unit(make({R, heads, key_dim})), k = unit(make({N, kv_heads, key_dim}));
    const double low = std::log(decay_low), high = std::log(decay_high);
    return {{q},
            {k},
            {make({N, kv_heads, value_dim})},
            {-at::exp(at::rand({N, kv_heads}, at::kDouble) * (high - low) + low), true, true},
            {at::rand({N, kv_heads}, at::kDouble), true, true},
            {initial ? normal({B, kv_heads, key_dim, value_dim}) : at::Tensor(), initial, true}};
  }

  Function function(RecurrenceOp op) const {
    return [op, cu = cu_seqlens(lengths), read = read_index(read, total(lengths))](const std::vector<at::Tensor>& x) {
      const auto initial = x[5].defined() ? std::optional(x[5]) : std::nullopt;
      const auto [o, state] = op(x[0], x[1], x[2], x[3], x[4], cu, initial, read);
      return std::vector<at::Tensor>{o, state};
    };
  }

  void check(RecurrenceOp op, RecurrenceOp reference, at::ScalarType type, double floor = 0) const {
    compare(function(op), function(reference), inputs(), type, str() + " " + c10::toString(type), floor);
  }
};

inline const std::vector<at::ScalarType>& precisions() {
  static const std::vector<at::ScalarType> all{at::kDouble, at::kFloat, at::kBFloat16};
  return all;
}

// Everything DESIGN section 8 asks of a recurrence.
// Eight dims make the keys nearly parallel, where a delta rule with bfloat16 products may want a larger floor.
inline void check_lengths(RecurrenceOp op, RecurrenceOp reference, double bf16_floor = 0) {
  for (const auto& lengths : ragged_cases())
    for (auto type : precisions())
      for (bool initial : {false, true}) {
        RecurrenceCase c;
        c.lengths = lengths, c.initial = initial, c.key_dim = 8, c.value_dim = 24;
        c.check(op, reference, type, type == at::kBFloat16 ? bf16_floor : 0);
      }
}

inline void check_reads(RecurrenceOp op, RecurrenceOp reference) {
  for (auto read : {Read::sparse, Read::dense})
    for (auto type : precisions())
      for (bool initial : {false, true}) {
        RecurrenceCase c;
        c.lengths = {65, 0, 130, 3}, c.read = read, c.initial = initial;
        c.check(op, reference, type);
      }
}

inline void check_shapes(RecurrenceOp op, RecurrenceOp reference) {
  for (auto [heads, kv_heads] : {std::pair<int64_t, int64_t>{2, 1}, {4, 1}, {4, 2}, {3, 3}})
    for (auto [kd, vd] : {std::pair<int64_t, int64_t>{8, 8}, {24, 40}, {64, 128}, {13, 5}}) {
      RecurrenceCase c;
      c.lengths = {66, 9}, c.heads = heads, c.kv_heads = kv_heads, c.key_dim = kd, c.value_dim = vd,
      c.read = Read::dense;
      for (auto type : precisions()) c.check(op, reference, type);
    }
  RecurrenceCase wide;
  wide.lengths = {70}, wide.heads = wide.kv_heads = 1, wide.key_dim = wide.value_dim = 256;
  for (auto type : precisions()) wide.check(op, reference, type);
}

// Chunks of the ATen paths differ with the head dims and the longest sequence.
inline void check_chunks(RecurrenceOp op, RecurrenceOp reference) {
  for (const auto& lengths :
       std::vector<std::vector<int64_t>>{{0}, {0, 0}, {1, 1, 1}, {70}, {64, 64}, {128, 128}, {300, 2, 129}})
    for (auto type : precisions()) {
      RecurrenceCase c;
      c.lengths = lengths, c.heads = 2, c.kv_heads = 1, c.key_dim = 96, c.value_dim = 72;
      if (lengths.size() == 3) c.read = Read::sparse;
      c.check(op, reference, type);
    }
}

// Fewer heads than threads: the values' columns are divided, and three threads take slices of both widths.
inline void check_slices(RecurrenceOp op, RecurrenceOp reference) {
  const int threads = at::get_num_threads();
  at::set_num_threads(3);
  for (auto type : precisions()) {
    RecurrenceCase c;
    c.lengths = {66}, c.value_dim = 72;
    c.check(op, reference, type);
  }
  at::set_num_threads(threads);
}

inline void check_decays(RecurrenceOp op, RecurrenceOp reference) {
  for (auto [low, high] : {std::pair{1e-4, 2e-4}, {0.5, 2.0}, {15.0, 20.0}, {1e-4, 20.0}, {200.0, 5000.0}})
    for (auto type : precisions()) {
      RecurrenceCase c;
      c.lengths = {130, 64}, c.decay_low = low, c.decay_high = high;
      c.check(op, reference, type);
    }
}

inline void check_non_contiguous(RecurrenceOp op, RecurrenceOp reference) {
  RecurrenceCase c;
  c.non_contiguous = true, c.read = Read::dense;
  for (auto type : precisions()) c.check(op, reference, type);
}

// Central differences in fp64, independent of any autograd.
inline void check_differences(RecurrenceOp op) {
  RecurrenceCase c;
  c.lengths = {5, 66}, c.heads = 2, c.kv_heads = 1, c.key_dim = 3, c.value_dim = 2, c.read = Read::dense;
  const auto function = c.function(op);
  const auto inputs = c.inputs();
  std::vector<at::Tensor> leaves, weights;
  for (const auto& input : inputs) leaves.push_back(input.value.clone().requires_grad_(true));
  const auto loss = [&](const std::vector<at::Tensor>& x) {
    const auto out = function(x);
    if (weights.empty())
      for (const auto& o : out) weights.push_back(normal(o.sizes()));
    return (out[0] * weights[0]).sum() + (out[1] * weights[1]).sum();
  };
  const auto gradients = torch::autograd::grad({loss(leaves)}, leaves);
  c10::NoGradGuard no_grad;
  for (size_t i = 0; i < leaves.size(); ++i) {
    const at::Tensor direction = normal(leaves[i].sizes());
    const double h = 1e-6;
    auto plus = leaves, minus = leaves;
    plus[i] = leaves[i] + h * direction;
    minus[i] = leaves[i] - h * direction;
    const double numeric = (loss(plus) - loss(minus)).item<double>() / (2 * h);
    const double analytic = (gradients[i] * direction).sum().item<double>();
    EXPECT_NEAR(analytic, numeric, 1e-6 * (1 + std::abs(numeric))) << "input " << i;
  }
}

// A sequence cut in two, the state carried over, is the sequence whole.
inline void check_carried_state(RecurrenceOp op) {
  for (int64_t cut : {1, 63, 64, 65, 100}) {
    RecurrenceCase c;
    c.lengths = {130};
    const auto x = c.inputs();
    const auto whole = c.function(op)({x[0].value, x[1].value, x[2].value, x[3].value, x[4].value, x[5].value});
    at::Tensor state = x[5].value;
    std::vector<at::Tensor> parts;
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, 130}}) {
      const auto s = [b = begin, e = end](const Input& in) { return in.value.slice(0, b, e); };
      const auto [o, next] =
          op(s(x[0]), s(x[1]), s(x[2]), s(x[3]), s(x[4]), cu_seqlens({end - begin}), state, std::nullopt);
      parts.push_back(o);
      state = next;
    }
    EXPECT_LT((at::cat(parts) - whole[0]).abs().max().item<double>(), 1e-12) << "cut at " << cut;
    EXPECT_LT((state - whole[1]).abs().max().item<double>(), 1e-12) << "cut at " << cut;
  }
}

// A sequence alone gives the same bits as the same sequence in a batch.
inline void check_batch_independence(RecurrenceOp op) {
  RecurrenceCase c;
  c.lengths = {70, 0, 33, 130}, c.initial = false;
  const auto x = c.inputs();
  std::vector<at::Tensor> f;
  for (const auto& in : x) f.push_back(in.value.defined() ? in.value.to(at::kFloat) : in.value);
  const auto batch = c.function(op)(f);
  const auto s = [&](int i) { return f[i].slice(0, 70, 103); };
  const auto [o, state] = op(s(0), s(1), s(2), s(3), s(4), cu_seqlens({33}), std::nullopt, std::nullopt);
  EXPECT_TRUE(at::equal(o, batch[0].slice(0, 70, 103)));
  EXPECT_TRUE(at::equal(state[0], batch[1][2]));
}

inline void expect_error(const std::function<void()>& call, const std::string& words) {
  try {
    call();
    ADD_FAILURE() << "no error; expected one with: " << words;
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what_without_backtrace()).find(words), std::string::npos)
        << error.what_without_backtrace();
  }
}

inline void check_errors(RecurrenceOp op, const std::string& w) {
  RecurrenceCase c;
  c.lengths = {4, 3};
  std::vector<at::Tensor> x;
  for (const auto& in : c.inputs()) x.push_back(in.value.to(at::kFloat));
  const at::Tensor cu = cu_seqlens({4, 3});
  const auto with = [&](size_t i, const at::Tensor& other, const at::Tensor& seqlens,
                        std::optional<at::Tensor> read = {}) {
    return [=] {
      auto y = x;
      if (i < y.size()) y[i] = other;
      op(y[0], y[1], y[2], y[3], y[4], seqlens, y[5], read);
    };
  };
  expect_error(with(0, x[0].slice(0, 0, 6), cu), "q must have shape [7, any, 16]");
  expect_error(with(0, x[0].slice(1, 0, 1), cu), "q must have a multiple of k's 2 heads");
  expect_error(with(1, x[1].slice(2, 0, 3), cu), "q must have shape [7, any, 3]");
  expect_error(with(1, x[1].to(at::kDouble), cu), "k must be Float");
  expect_error(with(2, x[2].slice(0, 0, 3), cu), "v must have shape [7, 2, any]");
  expect_error(with(3, x[3].slice(1, 0, 1), cu), "g must have shape [7, 2]");
  expect_error(with(3, x[3].to(at::kHalf), cu), "g must be Float");
  expect_error(with(4, x[4].slice(0, 1), cu), w + " must have shape [7, 2]");
  expect_error(with(5, x[5].slice(0, 1), cu), "initial_state must have shape [2, 2, 16, 16]");
  expect_error(with(5, x[5].to(at::kBFloat16), cu), "initial_state must be Float");
  expect_error(with(9, {}, cu_seqlens({4, 4})), "cu_seqlens must run from 0 to 7");
  expect_error(with(9, {}, cu.to(at::kLong)), "cu_seqlens must be int32");
  expect_error(with(9, {}, at::tensor({0, 5, 4, 7}, at::kInt)), "must");
  expect_error(with(0, x[0].slice(0, 0, 2), cu, at::tensor({1, 7}, at::kLong)), "read_index must lie in [0, 7)");
  expect_error(with(0, x[0].slice(0, 0, 2), cu, at::tensor({3, 3}, at::kLong)), "read_index must ascend");
  expect_error(with(0, x[0].to(at::kInt), cu), "q must be float32, bfloat16 or float64");
}

}  // namespace oryx::ops::testing
