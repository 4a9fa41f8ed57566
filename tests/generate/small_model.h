#pragma once

#include <cstdint>
#include <vector>

#include "base/random.h"
#include "model/config.h"
#include "model/language_model.h"

namespace oryx {

// A model in double precision whose weights are large enough that every token matters.
inline LanguageModel small_model(const char* kind = "oryx-gdn-tiny") {
  ModelConfig c = preset(kind);
  c.vocab_size = 50, c.num_hidden_layers = 2, c.hidden_size = 32, c.num_attention_heads = 4, c.num_key_value_heads = 2;
  c.head_dim = c.value_head_dim = 8, c.intermediate_size = 64, c.initializer_range = 0.2;
  LanguageModel model = LanguageModel::random(c, 3);
  model.to_double();
  return model;
}

// n tokens that it knows.
inline std::vector<int64_t> random_tokens(uint64_t seed, int64_t n) {
  Random random{seed};
  std::vector<int64_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<int64_t>(random.below(50)));
  return out;
}

}  // namespace oryx
