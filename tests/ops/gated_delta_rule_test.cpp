#include "ops/gated_delta_rule/op.h"

#include "ops/recurrence_testing.h"

namespace oryx::ops::testing {

// Equal keys, beta 1, no decay: the triangular system is all ones, and powers of it have large elements.
static void check_equal_keys(RecurrenceOp op) {
  RecurrenceCase c;
  c.lengths = {130}, c.heads = c.kv_heads = 1, c.key_dim = c.value_dim = 80;
  auto inputs = c.inputs();
  inputs[1].value = inputs[1].value.slice(0, 0, 1).expand_as(inputs[1].value).contiguous();
  inputs[3].value = at::full_like(inputs[3].value, -1e-9);
  inputs[4].value = at::ones_like(inputs[4].value);
  for (auto type : {at::kDouble, at::kFloat})
    compare(c.function(op), c.function(gated_delta_rule_reference), inputs, type, "equal keys");
}

TEST(GatedDeltaRule, Lengths) {
  check_lengths(gated_delta_rule, gated_delta_rule_reference);
}
TEST(GatedDeltaRule, Reads) {
  check_reads(gated_delta_rule, gated_delta_rule_reference);
}
TEST(GatedDeltaRule, HeadsAndDims) {
  check_shapes(gated_delta_rule, gated_delta_rule_reference);
}
TEST(GatedDeltaRule, Slices) {
  check_slices(gated_delta_rule, gated_delta_rule_reference);
}
TEST(GatedDeltaRule, Decays) {
  check_decays(gated_delta_rule, gated_delta_rule_reference);
}
TEST(GatedDeltaRule, NonContiguous) {
  check_non_contiguous(gated_delta_rule, gated_delta_rule_reference);
}
TEST(GatedDeltaRule, FiniteDifferences) {
  check_differences(gated_delta_rule);
}
TEST(GatedDeltaRule, CarriedState) {
  check_carried_state(gated_delta_rule);
}
TEST(GatedDeltaRule, SequenceAloneAsInBatch) {
  check_batch_independence(gated_delta_rule);
}
TEST(GatedDeltaRule, EqualKeys) {
  check_equal_keys(gated_delta_rule);
}
TEST(GatedDeltaRule, Errors) {
  check_errors(gated_delta_rule, "beta");
}

TEST(GatedDeltaRuleAten, Lengths) {
  check_lengths(gated_delta_rule_aten, gated_delta_rule_reference, 1.2e-2);
}
TEST(GatedDeltaRuleAten, Reads) {
  check_reads(gated_delta_rule_aten, gated_delta_rule_reference);
}
TEST(GatedDeltaRuleAten, Decays) {
  check_decays(gated_delta_rule_aten, gated_delta_rule_reference);
}
TEST(GatedDeltaRuleAten, Chunks) {
  check_chunks(gated_delta_rule_aten, gated_delta_rule_reference);
}
TEST(GatedDeltaRuleAten, HeadsAndDims) {
  check_shapes(gated_delta_rule_aten, gated_delta_rule_reference);
}
TEST(GatedDeltaRuleAten, NonContiguous) {
  check_non_contiguous(gated_delta_rule_aten, gated_delta_rule_reference);
}
TEST(GatedDeltaRuleAten, FiniteDifferences) {
  check_differences(gated_delta_rule_aten);
}
TEST(GatedDeltaRuleAten, CarriedState) {
  check_carried_state(gated_delta_rule_aten);
}
TEST(GatedDeltaRuleAten, EqualKeys) {
  check_equal_keys(gated_delta_rule_aten);
}
TEST(GatedDeltaRuleAten, Errors) {
  check_errors(gated_delta_rule_aten, "beta");
}

}  // namespace oryx::ops::testing
