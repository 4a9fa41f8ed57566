#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/config.h"

namespace oryx {

// What one sequence carries between calls of LanguageModel: for every token and layer the key, the value and the gates,
// whatever mixer served the token, and after the last token the recurrent state and the convolutions' tails. None of it
// depends on the schedule of its own layer, only on the layer's input.
//
// Three parts can be let go, and asking for what was dropped is an InputError that names it:
//   keys and values   (drop_kv)        attention, replay and truncation need them; without them memory is constant
//   state             (drop_state)     the recurrence needs it; rebuild_state() brings it back from keys and values
//   inputs            (keep_inputs)    the convolutions' inputs of all tokens, which only truncation needs; as large as
//                                      keys and values
class Cache {
 public:
  struct Options {
    bool keep_inputs = true;
  };
  // `dtype` is the model's compute type (float32, bfloat16, float64); the state is float32 (float64 for float64).
  Cache(const ModelConfig& config, at::ScalarType dtype, at::Device device, Options options);
  Cache(const ModelConfig& config, at::ScalarType dtype, at::Device device = at::kCPU)
      : Cache(config, dtype, device, Options{}) {}

  Cache clone() const;  // deep
  // Shares the tokens so far; what either goes on to write is its own. Neither may then be truncated to before the
  // fork.
  Cache fork() const;
  int64_t length() const { return length_; }  // tokens
  bool has_kv() const { return has_kv_; }
  bool has_state() const { return has_state_; }  // false also for a model without a recurrence
  bool has_inputs() const { return has_inputs_; }
  int64_t bytes() const;  // held in memory, spare room included

  void drop_kv();
  void drop_state();
  void rebuild_state();
  // Forgets all but the first n tokens. Needs keys, values and inputs. The state is replayed.
  void truncate(int64_t n);
  // The recurrent state after the first n tokens, one tensor [Hkv, Kd, Vd] for each layer: replayed from the cached
  // keys, values and gates in one chunked scan, without a pass through the network.
  std::vector<at::Tensor> state_at(int64_t n) const;

  // Views of the cached tokens of one layer. keys/values [n, Hkv, Kd|Vd]; gates [n, Hkv]: g the log decay, w beta or
  // dt.
  // keys and values can be asked to hold also the first `staged` tokens that are not yet committed.
  at::Tensor keys(int64_t layer, int64_t staged = 0) const { return view(layers_[layer].k, staged); }
  at::Tensor values(int64_t layer, int64_t staged = 0) const { return view(layers_[layer].v, staged); }
  at::Tensor log_decays(int64_t layer) const { return view(layers_[layer].g); }
  at::Tensor writes(int64_t layer) const { return view(layers_[layer].w); }
  const at::Tensor& state(int64_t layer) const;                                      // [Hkv, Kd, Vd]
  const at::Tensor& key_tail(int64_t layer) const { return layers_[layer].k_tail; }  // [Hkv * Kd, W - 1], oldest first
  const at::Tensor& value_tail(int64_t layer) const { return layers_[layer].v_tail; }  // [Hkv * Vd, W - 1]

  // Used by LanguageModel, layer by layer: what `n` new tokens write, before the mixers run and after. Visible from
  // commit(n) on, so that a failing pass leaves the cache as it was.
  struct Rows {
    at::Tensor k, v, g, w;        // [n, ...], gates undefined without a recurrence
    at::Tensor k_input, v_input;  // the convolutions' inputs [n, Hkv * Kd], [n, Hkv * Vd]
  };
  struct Ends {
    at::Tensor k_tail, v_tail, state;  // after the last token
  };
  // Copies that are made together: on a GPU the call of one costs more than what it moves.
  class Copies {
   public:
    void add(const at::Tensor& to, const at::Tensor& from);
    void run() const;

   private:
    struct Group {
      at::ScalarType type;
      std::vector<at::Tensor> to, from;
    };
    std::vector<Group> groups_;
  };
  void stage(int64_t layer, const Rows& rows, Copies& copies);
  void stage(int64_t layer, const Ends& ends);
  void commit(int64_t n);

 private:
  struct Layer {
    at::Tensor k, v, g, w, k_input, v_input;  // [capacity, ...]
    at::Tensor k_tail, v_tail, state;
    at::Tensor next_k_tail, next_v_tail, next_state;
  };
  at::Tensor view(const at::Tensor& buffer, int64_t staged = 0) const;
  void append(at::Tensor& buffer, const at::Tensor& rows, Copies& copies) const;
  at::Tensor tail_at(const at::Tensor& inputs, int64_t n) const;

  ModelConfig config_;
  int64_t length_ = 0;
  bool has_kv_ = true, has_state_, has_inputs_;
  std::vector<Layer> layers_;
};

}  // namespace oryx
