#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/cache.h"
#include "model/language_model.h"
#include "model/schedule.h"

namespace oryx {

struct ReadSequence {
  std::span<const int64_t> tokens;
  const MixerSchedule* schedule;  // of at least tokens.size() tokens
  int64_t wanted = 0;             // its hidden states are asked for from this token on
};

// A piece [begin, end) of the tokens of some sequences, read once for all of them.
struct Segment {
  int64_t row;  // of token `wanted` in the hidden states
  int64_t begin, end;
  int64_t wanted;                     // of its tokens those of [wanted, end) have hidden states, as some sequence asks
  std::span<const size_t> sequences;  // that begin with it and with what came before it
  Cache* cache;                       // after its last token; null for a piece that needed none
};

// Reads sequences in packed batches of about `batch_tokens`, what several of them begin with (the same tokens served by
// the same mixers) once: the choices of a question, few-shot examples before all questions. `visit` gets each batch's
// hidden states [R, D], of what is wanted, and pieces; those of a sequence come in the order of its tokens. With
// `keep_caches` every piece has a cache, which holds the parts that the sequences' schedules, to their ends, ask for.
void read_sharing_prefixes(const LanguageModel& model, const std::vector<ReadSequence>& sequences, int64_t batch_tokens,
                           bool keep_caches,
                           const std::function<void(const at::Tensor& hidden, std::span<const Segment>)>& visit);

}  // namespace oryx
