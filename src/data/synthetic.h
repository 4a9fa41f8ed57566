#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/random.h"
#include "data/batch.h"
#include "data/tokenizer.h"

namespace oryx {

// Tasks that ask for something from earlier in the sequence, to be mixed into training. Only the answers are targets;
// the last one asks for everything, and there is nothing to know.
//   copy        n random tokens of [1, vocab), a 0, and the n tokens again, which are the targets
//   phone_book  lines of names and numbers, then questions for the numbers of some of them (Jelassi et al. 2024, arXiv
//               2402.01032)
//   needle      sentences "One of the special magic numbers for NAME is: NUMBER." among filler, then questions for some
//               of the numbers (RULER's niah; Hsieh et al. 2024, arXiv 2404.06654)
//   random      random tokens of [0, vocab), for measuring
struct SyntheticTask {
  std::string kind;     // "copy" | "phone_book" | "needle" | "random"
  int64_t vocab = 256;  // copy, random
  int64_t length = 0;   // tokens of a sequence; 0: the context
  int64_t queries = 4;  // phone_book, needle: questions in a sequence
  int64_t needles = 4;  // needle: sentences to be found

  bool is_text() const { return kind != "copy" && kind != "random"; }
  int64_t length_in(int64_t context) const { return length > 0 ? length : context; }
  // The members of `kind` out of a larger table, which is left for the caller to finish(). InputError that names the
  // member.
  static SyntheticTask from_fields(const std::string& kind, Fields& fields);
  Json to_json() const;
};

class SyntheticSource : public BatchSource {
 public:
  // batch_tokens is a multiple of context and that of the task's length. A text task fills nearly all of a sequence;
  // the others need no tokenizer. InputError when a sequence is too short for the task.
  SyntheticSource(SyntheticTask task, std::shared_ptr<const Tokenizer> tokenizer, int64_t context, int64_t batch_tokens,
                  uint64_t seed);

  Batch batch(int64_t step) const override;
  int64_t batch_tokens() const override { return batch_tokens_; }
  int64_t vocab_size() const override { return task_.is_text() ? tokenizer_->vocab_size() : task_.vocab; }
  int64_t max_length() const override { return length_; }
  int64_t epoch_tokens() const override { return 0; }

 private:
  void append_copy(Random& random, Batch& batch) const;
  void append_random(Random& random, Batch& batch) const;
  void append_text(Random& random, Encoder& encoder, Batch& batch) const;

  SyntheticTask task_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  int64_t length_, batch_tokens_;
  uint64_t seed_;
};

}  // namespace oryx
