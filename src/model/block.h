#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "model/cache.h"
#include "model/layout.h"
#include "model/linears.h"

namespace oryx {

class LanguageModel;

// What the sequences of a layout continue, one cache for each, and where what they write goes: the same caches, or
// nowhere. Both empty: they begin here and leave nothing behind.
struct CacheUse {
  std::span<const Cache* const> past;
  std::span<Cache* const> written;
};

// The residual stream x + delta, float32 (float64) and compute type: who reads it next adds them, in one pass with its
// norm. delta is undefined where nothing is to be added.
struct Residual {
  at::Tensor x, delta;
  at::Tensor sum() const;
  // The sum and its norm in the compute type of `model`.
  std::tuple<at::Tensor, at::Tensor> normed(const LanguageModel& model, const at::Tensor& weight) const;
};

// One layer of the decoder: x += mixer(rms_norm(x)); x += swiglu(rms_norm(x)).
class Block {
 public:
  Block(const LanguageModel& model, int64_t layer);
  // x [N, D]; returns its rows that the layout's reads of this layer want, all unless it says
  // otherwise. Stages what the new tokens write into the caches that are written, if any.
  Residual forward(const Residual& residual, const SequenceLayout& layout, CacheUse caches) const;

 private:
  struct Projected {                      // the sum of the residual, and what is made of its norm
    at::Tensor x, k, v, a, b, gate;       // [N, .] and the gate [rows wanted, H, Vd]; a, b perhaps undefined
    at::Tensor q_attention, q_recurrent;  // [rows of the mode, H, Kd], undefined where it does not run
  };
  struct Written {          // what both mixers read, for all tokens
    at::Tensor k, v, g, w;  // [N, Hkv, .]
    at::Tensor k_input, v_input, k_tail, v_tail;
  };
  at::Tensor weight(const std::string& name) const;     // in the compute type
  at::Tensor parameter(const std::string& name) const;  // as stored
  static bool recurs(const LayerReads& reads, CacheUse caches);
  // The residual's sum, and linears() of its norm.
  std::tuple<at::Tensor, std::vector<at::Tensor>> normed_linears(
      const Residual& residual, const char* norm, const std::vector<Linear>& layers,
      const std::optional<at::Tensor>& order = std::nullopt) const;
  Projected project(const Residual& residual, const SequenceLayout& layout, CacheUse caches) const;
  Written write(const Projected& projected, const SequenceLayout& layout, CacheUse caches) const;
  at::Tensor attention_scale() const;  // [H, 1]
  at::Tensor attention(const at::Tensor& q, const Written& written, const SequenceLayout& layout,
                       CacheUse caches) const;
  // The same where nothing else reads keys and values, which are then not kept for the backward pass.
  at::Tensor attention_alone(const Projected& projected, const SequenceLayout& layout) const;
  at::Tensor recurrent(at::Tensor q, const Written& written, const SequenceLayout& layout, CacheUse caches,
                       at::Tensor& final_state) const;
  void stage_rows(const Written& written, const SequenceLayout& layout, std::span<Cache* const> caches) const;
  void stage_ends(const Written& written, const at::Tensor& final_state, std::span<Cache* const> caches) const;

  const LanguageModel& model_;
  const ModelConfig& config_;
  int64_t layer_;
  std::string prefix_;
};

}  // namespace oryx
