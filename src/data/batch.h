#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace oryx {

// A target that no loss is taken for (ignore_index of the cross entropy).
inline constexpr int64_t kIgnoredTarget = -100;

// N tokens of one or more sequences laid end to end.
struct Batch {
  std::vector<int64_t> tokens;      // [N], inputs
  std::vector<int64_t> targets;     // [N], what follows each input, or kIgnoredTarget
  std::vector<int32_t> cu_seqlens;  // [sequences + 1], from 0 to N

  int64_t sequences() const { return static_cast<int64_t>(cu_seqlens.size()) - 1; }
  int64_t target_count() const {
    return static_cast<int64_t>(targets.size()) - std::count(targets.begin(), targets.end(), kIgnoredTarget);
  }
};

// Training batches as a pure function of (seed, step): a resumed run needs the step alone, and ranks that share the
// work take steps of their own (step * ranks + rank). Const members may be called from several threads.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual Batch batch(int64_t step) const = 0;  // step >= 0; there is no last one
  virtual int64_t batch_tokens() const = 0;     // N of every batch
  virtual int64_t vocab_size() const = 0;       // tokens are in [0, vocab_size)
  virtual int64_t max_length() const = 0;       // no sequence is longer
  virtual int64_t epoch_tokens() const = 0;     // inputs until the data repeats; 0 when it never does
};

}  // namespace oryx
