#include "ops/ssd/op.h"

#include "ops/recurrence_testing.h"

namespace oryx::ops::testing {

TEST(Ssd, Lengths) {
  check_lengths(ssd, ssd_reference);
}
TEST(Ssd, Reads) {
  check_reads(ssd, ssd_reference);
}
TEST(Ssd, HeadsAndDims) {
  check_shapes(ssd, ssd_reference);
}
TEST(Ssd, Slices) {
  check_slices(ssd, ssd_reference);
}
TEST(Ssd, Decays) {
  check_decays(ssd, ssd_reference);
}
TEST(Ssd, NonContiguous) {
  check_non_contiguous(ssd, ssd_reference);
}
TEST(Ssd, FiniteDifferences) {
  check_differences(ssd);
}
TEST(Ssd, CarriedState) {
  check_carried_state(ssd);
}
TEST(Ssd, SequenceAloneAsInBatch) {
  check_batch_independence(ssd);
}
TEST(Ssd, Errors) {
  check_errors(ssd, "dt");
}

TEST(SsdAten, Lengths) {
  check_lengths(ssd_aten, ssd_reference);
}
TEST(SsdAten, Reads) {
  check_reads(ssd_aten, ssd_reference);
}
TEST(SsdAten, Decays) {
  check_decays(ssd_aten, ssd_reference);
}
TEST(SsdAten, Chunks) {
  check_chunks(ssd_aten, ssd_reference);
}
TEST(SsdAten, HeadsAndDims) {
  check_shapes(ssd_aten, ssd_reference);
}
TEST(SsdAten, NonContiguous) {
  check_non_contiguous(ssd_aten, ssd_reference);
}
TEST(SsdAten, FiniteDifferences) {
  check_differences(ssd_aten);
}
TEST(SsdAten, CarriedState) {
  check_carried_state(ssd_aten);
}
TEST(SsdAten, Errors) {
  check_errors(ssd_aten, "dt");
}

}  // namespace oryx::ops::testing
