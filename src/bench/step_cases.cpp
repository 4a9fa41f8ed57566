#include <ATen/ops/full.h>

#include <memory>

#include "bench/cases.h"
#include "bench/formulas.h"
#include "ops/attention/op.h"
#include "ops/gated_delta_rule/op.h"
#include "ops/ssd/op.h"

namespace oryx::bench {
namespace {

using Tensors = std::vector<at::Tensor>;

struct StepSizes {
  int64_t heads, dim;
  std::vector<int64_t> batches, keys;
};

StepSizes step_sizes(const OpsOptions& options) {
  if (options.quick) return {2, 32, {1, 4}, {256}};
  return {16, 128, {1, 64}, {8192, 65536}};
}

constexpr double kRopeBase = 1e4;

// Decoding: every sequence's state goes one token on. As in a model, whose layers and sequences take turns, each call
// finds another state, long out of the caches, and leaves the new one in its place.
Case recurrence_step(Inputs& inputs, const StepSizes& sizes, int64_t batch, const std::string& dtype, bool ssd) {
  const MixerInputs x = inputs.mixer(batch, sizes.heads, sizes.dim, dtype);
  Tensors small{x.q, x.k, x.v, x.g, ssd ? x.dt : x.beta};
  for (at::Tensor& t : small) t = t.slice(0, 0, batch);
  Row row{.op = ssd ? "ssd_step" : "gated_delta_rule_step",
          .pass = kForward,
          .dtype = dtype,
          .T = 1,
          .heads = sizes.heads,
          .dim = sizes.dim,
          .batch = batch,
          .tokens = batch,
          .bound = Bound::bytes};
  row.flops =
      ssd ? ssd_step_flops(batch, sizes.heads, sizes.dim) : gated_delta_rule_step_flops(batch, sizes.heads, sizes.dim);
  row.bytes = state_step_bytes(batch, sizes.heads, sizes.dim);
  Tensors& states = inputs.states(batch, sizes.heads, sizes.dim);
  const auto turn = std::make_shared<size_t>(0);
  const auto forward = [cu = inputs.cu_seqlens(batch, 1), &states, turn, ssd](const Tensors& x) {
    at::Tensor& state = states[(*turn)++ % states.size()];
    auto [o, next] = ssd ? ops::ssd(x[0], x[1], x[2], x[3], x[4], cu, state)
                         : ops::gated_delta_rule(x[0], x[1], x[2], x[3], x[4], cu, state);
    state = next;
    return o;
  };
  return {row, forward_call(small, forward)};
}

// One query at the end of `keys` cached keys and values, as Block::attention reads them: RoPE when keys are read.
Case attention_step(Inputs& inputs, const StepSizes& sizes, int64_t keys, const std::string& dtype) {
  Row row{.op = "attention_step",
          .pass = kForward,
          .dtype = dtype,
          .T = keys,
          .heads = sizes.heads,
          .dim = sizes.dim,
          .tokens = 1,
          .bound = Bound::bytes};
  row.flops = attention_step_flops(keys, sizes.heads, sizes.dim);
  row.bytes = attention_step_bytes(keys, sizes.heads, sizes.dim, dtype == "bf16" ? 2 : 4);
  const at::Tensor q = inputs.normal({1, sizes.heads, sizes.dim}, dtype);
  // Keys, then values: one cache each.
  Tensors caches = inputs.rotation(dtype, {2, keys, sizes.heads, sizes.dim});
  const auto options = at::device(inputs.device()).dtype(at::kLong);
  const at::Tensor last = at::full({1}, keys - 1, options);
  const auto turn = std::make_shared<size_t>(0);
  const auto forward = [=, cu = inputs.cu_seqlens(1, keys)](const Tensors& x) {
    const at::Tensor& cache = caches[(*turn)++ % caches.size()];
    return ops::attention(x[0], cache.select(0, 0), cache.select(0, 1), cu, last, 1.0, kRopeBase);
  };
  return {row, forward_call({q}, forward)};
}

}  // namespace

std::vector<Case> step_cases(Inputs& inputs, const OpsOptions& options) {
  std::vector<Case> cases;
  if (!options.has_pass(kForward)) return cases;
  const StepSizes sizes = step_sizes(options);
  for (const int64_t batch : sizes.batches)
    for (const std::string& dtype : options.dtypes)
      for (const bool ssd : {false, true})
        if (options.has_op(ssd ? "ssd_step" : "gated_delta_rule_step"))
          cases.push_back(recurrence_step(inputs, sizes, batch, dtype, ssd));
  for (const int64_t keys : sizes.keys)
    for (const std::string& dtype : options.dtypes)
      if (options.has_op("attention_step")) cases.push_back(attention_step(inputs, sizes, keys, dtype));
  return cases;
}

}  // namespace oryx::bench
