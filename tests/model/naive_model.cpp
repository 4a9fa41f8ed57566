#include "model/naive_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

namespace oryx {
namespace {

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
double silu(double x) {
  return x * sigmoid(x);
}
double softplus(double x) {
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}

void unit_length(Vector& x, int64_t dim) {
  for (size_t begin = 0; begin < x.size(); begin += dim) {
    double sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += x[begin + i] * x[begin + i];
    for (int64_t i = 0; i < dim; ++i) x[begin + i] /= std::sqrt(sum + 1e-6);
  }
}

// Rotate-half: the pair (j, j + dim/2) turns by position * base^(-2j/dim).
Vector rotate(const double* x, int64_t dim, int64_t position, double base) {
  Vector y(x, x + dim);
  if (base == 0) return y;
  for (int64_t j = 0; j < dim / 2; ++j) {
    const double angle =
        static_cast<double>(position) * std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(dim));
    y[j] = x[j] * std::cos(angle) - x[j + dim / 2] * std::sin(angle);
    y[j + dim / 2] = x[j + dim / 2] * std::cos(angle) + x[j] * std::sin(angle);
  }
  return y;
}

}  // namespace

double NaiveTrace::loss(size_t token, int64_t target) const {
  const Vector& z = logits[token];
  const double top = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (double value : z) sum += std::exp(value - top);
  return top + std::log(sum) - z[target];
}

NaiveModel::NaiveModel(const LanguageModel& model) : config_(model.config()) {
  for (const auto& [name, w] : model.weights()) {
    const at::Tensor x = w.detach().to(at::kDouble).contiguous();
    weights_[name] = Vector(x.const_data_ptr<double>(), x.const_data_ptr<double>() + x.numel());
  }
}

Vector NaiveModel::linear(const std::string& name, const Vector& x) const {
  const Vector& w = weight(name + ".weight");
  Vector y(w.size() / x.size(), 0.0);
  for (size_t o = 0; o < y.size(); ++o)
    for (size_t i = 0; i < x.size(); ++i) y[o] += w[o * x.size() + i] * x[i];
  return y;
}

Vector NaiveModel::rms_norm(const Vector& x, const Vector& w) const {
  Vector y = x;
  rms_norm_heads(y, static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < y.size(); ++i) y[i] *= w[i];
  return y;
}

void NaiveModel::rms_norm_heads(Vector& x, int64_t dim) const {
  for (size_t begin = 0; begin < x.size(); begin += dim) {
    double sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += x[begin + i] * x[begin + i];
    const double rms = std::sqrt(sum / static_cast<double>(dim) + config_.rms_norm_eps);
    for (int64_t i = 0; i < dim; ++i) x[begin + i] /= rms;
  }
}

// The convolution's output for the last of `inputs`; what lies before the first token is zero.
Vector NaiveModel::convolve(const std::string& name, const std::vector<Vector>& inputs) const {
  const Vector& w = weight(name + ".weight");
  const int64_t width = config_.conv_kernel, last = static_cast<int64_t>(inputs.size()) - 1;
  Vector y(inputs.back().size(), 0.0);
  for (size_t c = 0; c < y.size(); ++c) {
    for (int64_t back = 0; back < width && back <= last; ++back)
      y[c] += w[c * width + width - 1 - back] * inputs[last - back][c];
    if (config_.conv_activation == "silu") y[c] = silu(y[c]);
  }
  return y;
}

void NaiveModel::write(const std::string& mixer, const Vector& h, NaiveLayerTrace& trace) const {
  const int64_t Hkv = config_.num_key_value_heads, Kd = config_.head_dim, Vd = config_.value_head_dim;
  trace.key_inputs.push_back(linear(mixer + "k_proj", h));
  trace.value_inputs.push_back(linear(mixer + "v_proj", h));
  Vector k = convolve(mixer + "k_conv", trace.key_inputs), v = convolve(mixer + "v_conv", trace.value_inputs);
  unit_length(k, Kd);
  if (config_.recurrent()) {
    const bool delta = config_.recurrent() == Mixer::gated_deltanet;
    const Vector a = linear(mixer + "recurrent.a_proj", h);
    const Vector b = delta ? linear(mixer + "recurrent.b_proj", h) : Vector();
    Vector g(Hkv), w(Hkv), S = trace.states.empty() ? Vector(Hkv * Kd * Vd, 0.0) : trace.states.back();
    for (int64_t head = 0; head < Hkv; ++head) {
      const double dt = softplus(a[head] + weight(mixer + "recurrent.dt_bias")[head]);
      g[head] = -std::exp(weight(mixer + "recurrent.A_log")[head]) * dt;
      w[head] = delta ? sigmoid(b[head]) : dt;
      double* s = &S[head * Kd * Vd];
      const double* key = &k[head * Kd];
      const double* value = &v[head * Vd];
      for (int64_t i = 0; i < Kd * Vd; ++i) s[i] *= std::exp(g[head]);
      for (int64_t j = 0; j < Vd; ++j) {
        double u = w[head] * value[j] * std::sqrt(static_cast<double>(Kd));
        if (delta) {
          double read = 0;
          for (int64_t i = 0; i < Kd; ++i) read += s[i * Vd + j] * key[i];
          u = w[head] * (value[j] - read);
        }
        for (int64_t i = 0; i < Kd; ++i) s[i * Vd + j] += key[i] * u;
      }
    }
    trace.log_decays.push_back(g);
    trace.writes.push_back(w);
    trace.states.push_back(S);
  }
  trace.keys.push_back(k);
  trace.values.push_back(v);
}

Vector NaiveModel::attend(const std::string& mixer, const Vector& h, const NaiveLayerTrace& trace) const {
  const int64_t H = config_.num_attention_heads, Hkv = config_.num_key_value_heads;
  const int64_t Kd = config_.head_dim, Vd = config_.value_head_dim, n = static_cast<int64_t>(trace.keys.size());
  Vector q = linear(mixer + "attention.q_proj", h), o(H * Vd, 0.0);
  rms_norm_heads(q, Kd);
  for (int64_t head = 0; head < H; ++head) {
    const int64_t kv = head / (H / Hkv);
    const Vector query = rotate(&q[head * Kd], Kd, n - 1, config_.rope_theta);
    Vector p(n, 0.0);
    for (int64_t t = 0; t < n; ++t) {
      const Vector key = rotate(&trace.keys[t][kv * Kd], Kd, t, config_.rope_theta);
      for (int64_t i = 0; i < Kd; ++i) p[t] += weight(mixer + "attention.scale")[head] * query[i] * key[i];
    }
    const double top = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& value : p) sum += value = std::exp(value - top);
    for (int64_t t = 0; t < n; ++t)
      for (int64_t j = 0; j < Vd; ++j) o[head * Vd + j] += p[t] / sum * trace.values[t][kv * Vd + j];
  }
  return o;
}

Vector NaiveModel::recur(const std::string& mixer, const Vector& h, const NaiveLayerTrace& trace) const {
  const int64_t H = config_.num_attention_heads, Hkv = config_.num_key_value_heads;
  const int64_t Kd = config_.head_dim, Vd = config_.value_head_dim;
  const bool delta = config_.recurrent() == Mixer::gated_deltanet;
  Vector q = linear(mixer + "recurrent.q_proj", h), o(H * Vd, 0.0);
  if (delta) {
    if (config_.query_activation == "silu")
      for (double& value : q) value = silu(value);
    unit_length(q, Kd);
  } else {
    rms_norm_heads(q, Kd);
  }
  for (int64_t head = 0; head < H; ++head) {
    const int64_t kv = head / (H / Hkv);
    const double scale = (delta ? 1.0 : weight(mixer + "recurrent.scale")[head]) / std::sqrt(static_cast<double>(Kd));
    const double* s = &trace.states.back()[kv * Kd * Vd];
    for (int64_t j = 0; j < Vd; ++j) {
      for (int64_t i = 0; i < Kd; ++i) o[head * Vd + j] += s[i * Vd + j] * scale * q[head * Kd + i];
      if (!delta) o[head * Vd + j] += weight(mixer + "recurrent.D")[head] * trace.values.back()[kv * Vd + j];
    }
  }
  return o;
}

void NaiveModel::step(int64_t layer, Mode mode, Vector& x, NaiveLayerTrace& trace) const {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".", mixer = prefix + "mixer.";
  const Vector h = rms_norm(x, weight(prefix + "mixer_norm.weight"));
  write(mixer, h, trace);
  Vector o = mode == Mode::attention ? attend(mixer, h, trace) : recur(mixer, h, trace);
  const Vector gate = linear(mixer + "gate_proj", h), &w = weight(mixer + "o_norm.weight");
  rms_norm_heads(o, config_.value_head_dim);
  for (size_t i = 0; i < o.size(); ++i) o[i] *= w[i % w.size()] * silu(gate[i]);
  const Vector y = linear(mixer + "o_proj", o);
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];

  const Vector m = rms_norm(x, weight(prefix + "mlp_norm.weight"));
  Vector up = linear(prefix + "mlp.up_proj", m);
  const Vector act = linear(prefix + "mlp.gate_proj", m);
  for (size_t i = 0; i < up.size(); ++i) up[i] *= silu(act[i]);
  const Vector down = linear(prefix + "mlp.down_proj", up);
  for (size_t i = 0; i < x.size(); ++i) x[i] += down[i];
}

NaiveTrace NaiveModel::run(const std::vector<int64_t>& tokens, const MixerSchedule& schedule) const {
  NaiveTrace trace;
  trace.layers.resize(config_.num_hidden_layers);
  const Vector& embedding = weight("model.embed_tokens.weight");
  for (size_t t = 0; t < tokens.size(); ++t) {
    const auto row = embedding.begin() + tokens[t] * config_.hidden_size;
    Vector x(row, row + config_.hidden_size);
    for (int64_t i = 0; i < config_.num_hidden_layers; ++i)
      step(i, schedule.at(static_cast<int64_t>(t), i), x, trace.layers[i]);
    trace.hidden.push_back(rms_norm(x, weight("model.norm.weight")));
    trace.logits.push_back(linear(config_.tie_word_embeddings ? "model.embed_tokens" : "lm_head", trace.hidden.back()));
  }
  return trace;
}

at::Tensor to_tensor(const Vector& row) {
  return at::tensor(row, at::kDouble);
}

at::Tensor to_tensor(const std::vector<Vector>& rows) {
  const auto columns = static_cast<int64_t>(rows.empty() ? 0 : rows[0].size());
  at::Tensor out = at::empty({static_cast<int64_t>(rows.size()), columns}, at::kDouble);
  double* to = out.mutable_data_ptr<double>();
  for (const Vector& row : rows) to = std::copy(row.begin(), row.end(), to);
  return out;
}

}  // namespace oryx
