#pragma once

// What an operation has to do at least, counted the same way for every implementation: floating-point operations (a
// multiply-add is two) or bytes of memory traffic. T tokens, d the head dimension (of keys and of values alike), H
// heads, batch 1 unless said.

#include <cstdint>

#include "base/json.h"

namespace oryx::bench {

// The chunk at which the chunked forms below do the least work on current machines (Yang et al., "Gated Delta
// Networks", arXiv 2412.06464, section 3.3; Dao and Gu, "Transformers are SSMs", arXiv 2405.21060, section 6).
inline constexpr int64_t kFlopChunk = 64;

// Forward. Causal attention: q k^T and p v over half of the T x T square each.
double attention_flops(int64_t tokens, int64_t heads, int64_t dim);
// Per token and head 6 d^2 (S^T k, k u^T, S^T q) + 5 C d (k k^T, the triangular solve, q k^T and p u, causal halves).
double gated_delta_rule_flops(int64_t tokens, int64_t heads, int64_t dim);
// Per token and head 4 d^2 (k v^T, S^T q) + 2 C d (q k^T and p v, causal halves).
double ssd_flops(int64_t tokens, int64_t heads, int64_t dim);

// Forward and backward, as multiples of the forward: two more products for each of the forward's, and for attention
// the scores once again, since they are not kept.
inline constexpr double kRecurrenceTraining = 3.0;
inline constexpr double kAttentionTraining = 3.5;
inline constexpr double kLinearTraining = 3.0;

// Half of the tokens read by attention and the other half by the recurrence; both write all tokens. The recurrence's
// reads are 2 d^2 + 2 C d of its flops per token and head.
double half_attention_flops(int64_t tokens, int64_t heads, int64_t dim);
double half_gated_delta_rule_flops(int64_t tokens, int64_t heads, int64_t dim);
double half_ssd_flops(int64_t tokens, int64_t heads, int64_t dim);

// One token of each of `batch` sequences: 6 d^2 and 4 d^2 per head; the float32 state read and written once.
double gated_delta_rule_step_flops(int64_t batch, int64_t heads, int64_t dim);
double ssd_step_flops(int64_t batch, int64_t heads, int64_t dim);
double state_step_bytes(int64_t batch, int64_t heads, int64_t dim);

// One token over `keys` cached keys and values: both read once.
double attention_step_flops(int64_t keys, int64_t heads, int64_t dim);
double attention_step_bytes(int64_t keys, int64_t heads, int64_t dim, int64_t element_bytes);

// The logits h W^T of N tokens, width D and V words; the training pass has two more such products.
double linear_flops(int64_t tokens, int64_t width, int64_t words);

// All of the above in words, for the output.
Json formulas_json();

}  // namespace oryx::bench
