#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/div.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>

#include "bench/cases.h"
#include "bench/formulas.h"
#include "ops/attention/op.h"
#include "ops/gated_delta_rule/op.h"
#include "ops/ssd/op.h"

namespace oryx::bench {
namespace {

constexpr int64_t kMixedChunk = 256;     // tokens that go to one mixer before the other takes over
constexpr int64_t kMixedLongest = 8192;  // mixed sequences are measured up to here: they cost what their parts cost

using Tensors = std::vector<at::Tensor>;
using Index = std::optional<at::Tensor>;

// A sequence of T tokens of one shape and dtype, and which of its tokens each mixer reads when it is mixed.
struct Sequence {
  int64_t T, heads, dim;
  MixerInputs x;
  at::Tensor cu_seqlens, by_attention, by_recurrence;
};

Sequence sequence(Inputs& inputs, const OpsOptions& options, int64_t T, int64_t dim, const std::string& dtype) {
  Sequence s{T, options.heads, dim, inputs.mixer(options.lengths.back(), options.heads, dim, dtype), {}, {}, {}};
  for (at::Tensor* x : {&s.x.q, &s.x.k, &s.x.v, &s.x.g, &s.x.beta, &s.x.dt}) *x = x->slice(0, 0, T);
  s.cu_seqlens = inputs.cu_seqlens(1, T);
  const int64_t chunk = std::clamp<int64_t>(T / 2, 1, kMixedChunk);
  const at::Tensor turn = at::div(at::arange(T, at::kLong), chunk, "floor").remainder(2);
  s.by_recurrence = turn.eq(0).nonzero().view({-1}).to(inputs.device());
  s.by_attention = turn.eq(1).nonzero().view({-1}).to(inputs.device());
  return s;
}

// What one operation reads, how it is called, and the flops of its forward and of the training pass.
struct Operation {
  Tensors leaves;
  Forward forward;
  at::Tensor output_gradient;
  double flops, training_flops;
};

Operation attention(const Sequence& s) {
  const double flops = attention_flops(s.T, s.heads, s.dim);
  const auto forward = [cu = s.cu_seqlens](const Tensors& x) { return ops::attention(x[0], x[1], x[2], cu); };
  return {{s.x.q, s.x.k, s.x.v}, forward, s.x.v, flops, flops * kAttentionTraining};
}

Operation recurrence(const Sequence& s, bool ssd) {
  const double flops = ssd ? ssd_flops(s.T, s.heads, s.dim) : gated_delta_rule_flops(s.T, s.heads, s.dim);
  const auto forward = [cu = s.cu_seqlens, ssd](const Tensors& x) {
    return std::get<0>(ssd ? ops::ssd(x[0], x[1], x[2], x[3], x[4], cu)
                           : ops::gated_delta_rule(x[0], x[1], x[2], x[3], x[4], cu));
  };
  return {{s.x.q, s.x.k, s.x.v, s.x.g, ssd ? s.x.dt : s.x.beta}, forward, s.x.v, flops, flops * kRecurrenceTraining};
}

// One layer's two mixers over one sequence: keys and values are shared, each token has one query.
Operation mixed(const Sequence& s, bool ssd) {
  const double by_attention = half_attention_flops(s.T, s.heads, s.dim);
  const double by_recurrence =
      ssd ? half_ssd_flops(s.T, s.heads, s.dim) : half_gated_delta_rule_flops(s.T, s.heads, s.dim);
  const auto forward = [s, ssd](const Tensors& x) {
    const at::Tensor a = ops::attention(x[0], x[2], x[3], s.cu_seqlens, s.by_attention);
    const at::Tensor r = std::get<0>(
        ssd ? ops::ssd(x[1], x[2], x[3], x[4], x[5], s.cu_seqlens, std::nullopt, s.by_recurrence)
            : ops::gated_delta_rule(x[1], x[2], x[3], x[4], x[5], s.cu_seqlens, std::nullopt, s.by_recurrence));
    return at::cat({a, r});
  };
  const Tensors leaves{s.x.q.slice(0, 0, s.by_attention.size(0)),
                       s.x.q.slice(0, 0, s.by_recurrence.size(0)),
                       s.x.k,
                       s.x.v,
                       s.x.g,
                       ssd ? s.x.dt : s.x.beta};
  return {leaves, forward, s.x.v, by_attention + by_recurrence,
          by_attention * kAttentionTraining + by_recurrence * kRecurrenceTraining};
}

Operation operation(const std::string& name, const Sequence& s) {
  if (name == "attention") return attention(s);
  const bool ssd = name.ends_with("ssd");
  return name.starts_with("mixed") ? mixed(s, ssd) : recurrence(s, ssd);
}

}  // namespace

std::vector<Case> mixer_cases(Inputs& inputs, const OpsOptions& options) {
  std::vector<Case> cases;
  Tensors none;
  for (const int64_t T : options.lengths)
    for (const std::string& pass : options.passes)
      for (const int64_t dim : options.dims)
        for (const std::string& dtype : options.dtypes)
          for (const char* name : {"attention", "gated_delta_rule", "ssd", "mixed_gated_delta_rule", "mixed_ssd"}) {
            const bool is_mixed = std::string(name).starts_with("mixed");
            if (!options.has_op(name) || (is_mixed && (T > kMixedLongest || T < 2))) continue;
            const Operation op = operation(name, sequence(inputs, options, T, dim, dtype));
            Row row{.op = name, .pass = pass, .dtype = dtype, .T = T, .heads = options.heads, .dim = dim, .tokens = T};
            row.flops = pass == kForward ? op.flops : op.training_flops;
            cases.push_back({row, pass == kForward ? forward_call(op.leaves, op.forward)
                                                   : training_call(op.leaves, op.forward, op.output_gradient)});
          }
  return cases;
}

}  // namespace oryx::bench
