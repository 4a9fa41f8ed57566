#include "model/config.h"

namespace oryx {
namespace {

constexpr double kChunk = 64;  // of the chunked recurrences

// Forward flops per token of what follows the projections, one layer, 2 per multiply-add. Exponentials, norms and the
// other elementwise work are left out.
double attention_flops(const ModelConfig& c) {
  const double keys = static_cast<double>(c.max_position_embeddings) / 2;  // what a causal token sees on average
  return 2 * keys * static_cast<double>(c.num_attention_heads * (c.head_dim + c.value_head_dim));
}

double recurrence_flops(const ModelConfig& c) {
  const auto H = static_cast<double>(c.num_attention_heads), Hkv = static_cast<double>(c.num_key_value_heads);
  const auto Kd = static_cast<double>(c.head_dim), Vd = static_cast<double>(c.value_head_dim);
  // Per query head: a row of Q K^T and its product with V inside the chunk, and the state's readout q^T S.
  double flops = H * 2 * (kChunk * (Kd + Vd) + Kd * Vd);
  // Per key/value head: the state's update by k v^T.
  flops += Hkv * 2 * Kd * Vd;
  if (c.recurrent() == Mixer::gated_deltanet) {
    // The WY form (Yang et al. 2024, arXiv 2406.06484): a row of K K^T, forward substitution of the unit triangular
    // system for [K | V], half of it zeros, and the state's part of the new values, W S.
    flops += Hkv * 2 * (kChunk * Kd + kChunk / 2 * (Kd + Vd) + Kd * Vd);
  }
  return flops;
}

}  // namespace

ModelInfo model_info(const ModelConfig& c) {
  c.validate();
  ModelInfo info;
  auto& parameters = info.parameters;
  double shared_flops = 0, attention_projection = 0, recurrent_projection = 0, gate_flops = 0;
  for (const WeightSpec& spec : weight_specs(c)) {
    int64_t count = 1;
    for (int64_t dimension : spec.shape) count *= dimension;
    parameters.total += count;
    // Every weight matrix and convolution is one multiply-add per parameter and token; vectors are elementwise.
    const double flops = spec.shape.size() == 2 ? 2 * static_cast<double>(count) : 0;
    switch (spec.use) {
      case WeightSpec::Use::embedding:
        parameters.embedding += count;
        break;
      case WeightSpec::Use::shared:
        parameters.shared += count;
        shared_flops += flops;
        break;
      case WeightSpec::Use::attention:
        parameters.attention += count;
        attention_projection += flops;
        break;
      case WeightSpec::Use::recurrent: {
        parameters.recurrent += count;
        const bool query = spec.name.ends_with(".q_proj.weight");
        (query ? recurrent_projection : gate_flops) += flops;
        break;
      }
    }
  }
  // The head, tied or not; the gates are computed for every token, whatever mode serves it.
  shared_flops += 2 * static_cast<double>(c.vocab_size) * static_cast<double>(c.hidden_size) + gate_flops;

  const auto layers = static_cast<double>(c.num_hidden_layers);
  const auto ratio = [&](int64_t own) {
    return static_cast<double>(parameters.shared) / static_cast<double>(parameters.shared + own);
  };
  const int64_t key_value = c.num_key_value_heads * (c.head_dim + c.value_head_dim);
  if (c.has(Mode::attention)) {
    info.tie_ratio_attention = ratio(parameters.attention);
    info.flops_attention = shared_flops + attention_projection + layers * attention_flops(c);
    // Without attention nothing grows with the sequence. Log decay and beta or dt, fp32, make replay possible.
    const int64_t gates = c.has(Mode::recurrent) ? 2 * c.num_key_value_heads * 4 : 0;
    info.cache_bytes_per_token = c.num_hidden_layers * (key_value * (c.dtype == "bfloat16" ? 2 : 4) + gates);
  }
  int64_t state = key_value * (c.conv_kernel - 1);  // conv tails
  if (c.has(Mode::recurrent)) {
    info.tie_ratio_recurrent = ratio(parameters.recurrent);
    info.flops_recurrent = shared_flops + recurrent_projection + layers * recurrence_flops(c);
    state += c.num_key_value_heads * c.head_dim * c.value_head_dim;
  }
  info.state_bytes = c.num_hidden_layers * state * 4;
  return info;
}

}  // namespace oryx
