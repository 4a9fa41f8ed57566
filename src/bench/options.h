#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace oryx::bench {

// What `oryx bench ops` measures.
struct OpsOptions {
  std::vector<std::string> ops, dtypes, passes;  // empty: all of op_names(), fp32 and bf16, both passes
  std::vector<int64_t> lengths, dims;            // tokens of a sequence and head dims; empty: the default sizes
  int64_t heads = 0;                             // 0: the default
  double budget_s = 2;                           // seconds of samples for each case
  bool quick = false;                            // small sizes and few samples: to see that everything runs

  // Fills in what is empty. InputError for an unknown name or a size that makes no sense.
  void complete();
  bool has_op(const std::string& name) const;
  bool has_dtype(const std::string& name) const;
  bool has_pass(const std::string& name) const;
};

// What `oryx bench accuracy` compares.
struct AccuracyOptions {
  std::vector<std::string> ops, dtypes;  // empty: all of accuracy_op_names(), fp32 and bf16
  bool quick = false;                    // short sequences: to see that everything runs

  void complete();  // as above
};

inline constexpr const char* kForward = "forward";
inline constexpr const char* kTraining = "forward+backward";

// In the order in which they are measured.
const std::vector<std::string>& op_names();
const std::vector<std::string>& accuracy_op_names();

}  // namespace oryx::bench
