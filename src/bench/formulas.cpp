#include "bench/formulas.h"

namespace oryx::bench {
namespace {

double product(int64_t a, int64_t b, int64_t c = 1) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
}
// tokens * heads * (squares d^2 + chunks C d)
double chunked(int64_t tokens, int64_t heads, int64_t dim, double squares, double chunks) {
  const auto d = static_cast<double>(dim);
  return product(tokens, heads) * (squares * d * d + chunks * kFlopChunk * d);
}

}  // namespace

double attention_flops(int64_t tokens, int64_t heads, int64_t dim) {
  return 2 * product(tokens, tokens) * product(heads, dim);
}
double gated_delta_rule_flops(int64_t tokens, int64_t heads, int64_t dim) {
  return chunked(tokens, heads, dim, 6, 5);
}
double ssd_flops(int64_t tokens, int64_t heads, int64_t dim) {
  return chunked(tokens, heads, dim, 4, 2);
}

double half_attention_flops(int64_t tokens, int64_t heads, int64_t dim) {
  return attention_flops(tokens, heads, dim) / 2;
}
double half_gated_delta_rule_flops(int64_t tokens, int64_t heads, int64_t dim) {
  return chunked(tokens, heads, dim, 6 - 1, 5 - 1);
}
double half_ssd_flops(int64_t tokens, int64_t heads, int64_t dim) {
  return chunked(tokens, heads, dim, 4 - 1, 2 - 1);
}

double gated_delta_rule_step_flops(int64_t batch, int64_t heads, int64_t dim) {
  return 6 * product(batch, heads) * product(dim, dim);
}
double ssd_step_flops(int64_t batch, int64_t heads, int64_t dim) {
  return 4 * product(batch, heads) * product(dim, dim);
}
double state_step_bytes(int64_t batch, int64_t heads, int64_t dim) {
  return 2 * 4 * product(batch, heads) * product(dim, dim);
}

double attention_step_flops(int64_t keys, int64_t heads, int64_t dim) {
  return 4 * product(keys, heads, dim);
}
double attention_step_bytes(int64_t keys, int64_t heads, int64_t dim, int64_t element_bytes) {
  return 2 * product(keys, heads, dim) * static_cast<double>(element_bytes);
}

double linear_flops(int64_t tokens, int64_t width, int64_t words) {
  return 2 * product(tokens, width, words);
}

Json formulas_json() {
  return {
      {"attention", "2 T^2 d per head, forward; forward+backward 3.5x"},
      {"gated_delta_rule", "6 d^2 + 5 C d per head and token, C = 64, forward; forward+backward 3x"},
      {"ssd", "4 d^2 + 2 C d per head and token, C = 64, forward; forward+backward 3x"},
      {"mixed",
       "half of attention, and the recurrence less half of its reads, which are 2 d^2 + 2 C d per head and token"},
      {"gated_delta_rule_step", "6 d^2 flops per head; bytes: the float32 state read and written"},
      {"ssd_step", "4 d^2 flops per head; bytes: the float32 state read and written"},
      {"attention_step", "4 T d flops per head, T keys; bytes: T keys and values read once"},
      {"pointwise", "short_conv, rope, gated_rms_norm: bytes of tokens read once and written once"},
      {"linear_cross_entropy", "2 N V D, forward; forward+backward 3x (recomputed logits not counted)"},
      {"fraction_of_ceiling",
       "gflops over the ceiling of the row's dtype, or GB/s over read_gb_per_s where bound is bytes"},
  };
}

}  // namespace oryx::bench
