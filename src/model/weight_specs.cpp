#include "model/config.h"

namespace oryx {

std::vector<WeightSpec> weight_specs(const ModelConfig& c) {
  using Use = WeightSpec::Use;
  using Init = WeightSpec::Init;
  const int64_t D = c.hidden_size, V = c.vocab_size, F = c.intermediate_size, W = c.conv_kernel;
  const int64_t H = c.num_attention_heads, Hkv = c.num_key_value_heads, Kd = c.head_dim, Vd = c.value_head_dim;

  std::vector<WeightSpec> specs;
  // Matrices of the linear layers decay; embeddings and everything small (norms, convolutions, gates' constants) do
  // not.
  const auto matrix = [&](std::string name, int64_t out, int64_t in, Use use, Init init = Init::normal) {
    specs.push_back({std::move(name), {out, in}, use, init, true});
  };
  const auto small = [&](std::string name, std::vector<int64_t> shape, Use use, Init init) {
    specs.push_back({std::move(name), std::move(shape), use, init, false});
  };

  specs.push_back({"model.embed_tokens.weight", {V, D}, Use::embedding, Init::normal, false});
  if (!c.tie_word_embeddings) matrix("lm_head.weight", V, D, Use::embedding);
  small("model.norm.weight", {D}, Use::shared, Init::ones);

  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const std::string mixer = layer + "mixer.";
    small(layer + "mixer_norm.weight", {D}, Use::shared, Init::ones);
    small(layer + "mlp_norm.weight", {D}, Use::shared, Init::ones);
    matrix(mixer + "k_proj.weight", Hkv * Kd, D, Use::shared);
    small(mixer + "k_conv.weight", {Hkv * Kd, W}, Use::shared, Init::conv);
    matrix(mixer + "v_proj.weight", Hkv * Vd, D, Use::shared);
    small(mixer + "v_conv.weight", {Hkv * Vd, W}, Use::shared, Init::conv);
    matrix(mixer + "gate_proj.weight", H * Vd, D, Use::shared);
    small(mixer + "o_norm.weight", {Vd}, Use::shared, Init::ones);
    matrix(mixer + "o_proj.weight", D, H * Vd, Use::shared, Init::normal_scaled);
    if (c.has(Mode::attention)) {
      matrix(mixer + "attention.q_proj.weight", H * Kd, D, Use::attention);
      small(mixer + "attention.scale", {H}, Use::attention, Init::ones);
    }
    if (c.has(Mode::recurrent)) {
      matrix(mixer + "recurrent.q_proj.weight", H * Kd, D, Use::recurrent);
      matrix(mixer + "recurrent.a_proj.weight", Hkv, D, Use::recurrent);
      small(mixer + "recurrent.A_log", {Hkv}, Use::recurrent, Init::a_log);
      small(mixer + "recurrent.dt_bias", {Hkv}, Use::recurrent, Init::dt_bias);
      if (c.recurrent() == Mixer::gated_deltanet) {
        matrix(mixer + "recurrent.b_proj.weight", Hkv, D, Use::recurrent);
      } else {
        small(mixer + "recurrent.scale", {H}, Use::recurrent, Init::ones);
        small(mixer + "recurrent.D", {H}, Use::recurrent, Init::ones);
      }
    }
    matrix(layer + "mlp.gate_proj.weight", F, D, Use::shared);
    matrix(layer + "mlp.up_proj.weight", F, D, Use::shared);
    matrix(layer + "mlp.down_proj.weight", D, F, Use::shared, Init::normal_scaled);
  }
  return specs;
}

}  // namespace oryx
