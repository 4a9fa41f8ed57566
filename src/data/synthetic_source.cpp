#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "data/facts.h"
#include "data/permutation.h"
#include "data/synthetic.h"

namespace oryx {
namespace {

constexpr uint64_t kPurpose = 0x73796e7468657469;

// Tokens of a sequence, and which of them are answers.
struct Sequence {
  std::vector<int32_t> tokens;
  std::vector<bool> answer;

  void add(Encoder& encoder, std::string_view text, bool is_answer = false) {
    encoder.encode(text, tokens);
    answer.resize(tokens.size(), is_answer);
  }
  void add(const Sequence& other) {
    tokens.insert(tokens.end(), other.tokens.begin(), other.tokens.end());
    answer.insert(answer.end(), other.answer.begin(), other.answer.end());
  }
  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

Sequence stated(const std::string& kind, const Fact& fact, Encoder& encoder) {
  Sequence s;
  s.add(encoder, statement(kind, fact));
  return s;
}

Sequence asked(const std::string& kind, const Fact& fact, Encoder& encoder) {
  Sequence s;
  s.add(encoder, "\n" + question(kind, fact.name));
  s.add(encoder, " " + fact.number, true);
  return s;
}

// Statements of a book that leaves room for the questions, which are returned: as many entries as fit.
Sequence phone_book(const SyntheticTask& task, int64_t room, Random& random, Encoder& encoder) {
  Facts facts(random);
  std::vector<Fact> known;
  Sequence s;
  s.add(encoder, kPhoneBookHeading);
  int64_t longest = 0;  // question
  for (;;) {
    const Fact fact = facts.draw();
    const Sequence entry = stated(task.kind, fact, encoder);
    longest = std::max(longest, asked(task.kind, fact, encoder).size());
    if (s.size() + entry.size() + task.queries * longest > room) break;
    s.add(entry);
    known.push_back(fact);
  }
  require(static_cast<int64_t>(known.size()) >= task.queries,
          "a sequence of {} tokens is too short for a phone book with {} queries", room, task.queries);
  const Permutation order(known.size(), {random.next()});
  for (int64_t i = 0; i < task.queries; ++i) s.add(asked(task.kind, known[order(i)], encoder));
  return s;
}

Sequence haystack(const SyntheticTask& task, int64_t room, Random& random, Encoder& encoder) {
  Facts facts(random);
  std::vector<Sequence> needles;
  Sequence questions;
  int64_t left = room;
  const Permutation order(task.needles, {random.next()});
  for (int64_t i = 0; i < task.needles; ++i) {
    const Fact fact = facts.draw();
    needles.push_back(stated(task.kind, fact, encoder));
    left -= needles.back().size();
    if (static_cast<int64_t>(order(i)) < task.queries) questions.add(asked(task.kind, fact, encoder));
  }
  left -= questions.size();
  require(left >= 0, "a sequence of {} tokens is too short for {} needles with {} queries", room, task.needles,
          task.queries);
  std::vector<Sequence> filler;
  for (size_t i = random.below(std::size(kFiller));; ++i) {
    Sequence sentence;
    sentence.add(encoder, kFiller[i % std::size(kFiller)]);
    if (left < sentence.size()) break;
    left -= sentence.size();
    filler.push_back(std::move(sentence));
  }
  std::vector<size_t> places;  // of the needles: before so many sentences of filler
  for (int64_t i = 0; i < task.needles; ++i) places.push_back(random.below(filler.size() + 1));
  std::sort(places.begin(), places.end());
  Sequence s;
  for (size_t i = 0, needle = 0; i <= filler.size(); ++i) {
    while (needle < needles.size() && places[needle] == i) s.add(needles[needle++]);
    if (i < filler.size()) s.add(filler[i]);
  }
  s.add(questions);
  return s;
}

}  // namespace

SyntheticSource::SyntheticSource(SyntheticTask task, std::shared_ptr<const Tokenizer> tokenizer, int64_t context,
                                 int64_t batch_tokens, uint64_t seed)
    : task_(std::move(task)),
      tokenizer_(std::move(tokenizer)),
      length_(task_.length_in(context)),
      batch_tokens_(batch_tokens),
      seed_(seed) {
  require(batch_tokens >= length_ && batch_tokens % length_ == 0 && batch_tokens <= INT32_MAX,
          "batch_tokens must be a multiple of the {} tokens of a sequence, not {}", length_, batch_tokens);
  require(!task_.is_text() || tokenizer_, "the task {} needs a 'tokenizer'", task_.kind);
  batch(0);  // does the task fit?
}

void SyntheticSource::append_copy(Random& random, Batch& batch) const {
  const int64_t count = (length_ - 1) / 2;
  std::vector<int64_t> copied(count);
  for (int64_t& token : copied) token = 1 + static_cast<int64_t>(random.below(task_.vocab - 1));
  if (length_ % 2 == 0) batch.tokens.push_back(1 + static_cast<int64_t>(random.below(task_.vocab - 1)));
  batch.tokens.insert(batch.tokens.end(), copied.begin(), copied.end());
  batch.tokens.push_back(0);
  batch.targets.resize(batch.tokens.size() - 1, kIgnoredTarget);
  batch.tokens.insert(batch.tokens.end(), copied.begin(), copied.end());
  batch.targets.insert(batch.targets.end(), copied.begin(), copied.end());
  batch.targets.push_back(kIgnoredTarget);
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
}

void SyntheticSource::append_random(Random& random, Batch& batch) const {
  const auto draw = [&] { return static_cast<int64_t>(random.below(task_.vocab)); };
  batch.tokens.push_back(draw());
  for (int64_t i = 1; i < length_; ++i) {
    batch.tokens.push_back(draw());
    batch.targets.push_back(batch.tokens.back());
  }
  batch.targets.push_back(kIgnoredTarget);
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
}

void SyntheticSource::append_text(Random& random, Encoder& encoder, Batch& batch) const {
  const Sequence s =
      task_.kind == "needle" ? haystack(task_, length_, random, encoder) : phone_book(task_, length_, random, encoder);
  for (size_t i = 0; i < s.tokens.size(); ++i) {
    batch.tokens.push_back(s.tokens[i]);
    batch.targets.push_back(i + 1 < s.tokens.size() && s.answer[i + 1] ? s.tokens[i + 1] : kIgnoredTarget);
  }
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
  // What is left is too short for another entry: a sequence by itself, without targets.
  if (s.size() == length_) return;
  batch.tokens.resize(batch.tokens.size() + length_ - s.size(), tokenizer_->eos_id());
  batch.targets.resize(batch.tokens.size(), kIgnoredTarget);
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
}

Batch SyntheticSource::batch(int64_t step) const {
  require(step >= 0, "a batch's step must not be negative, and is {}", step);
  Batch batch;
  batch.cu_seqlens.push_back(0);
  std::unique_ptr<Encoder> encoder = task_.is_text() ? std::make_unique<Encoder>(*tokenizer_) : nullptr;
  for (int64_t i = 0; i < batch_tokens_ / length_; ++i) {
    Random random{seed_, kPurpose, static_cast<uint64_t>(step), static_cast<uint64_t>(i)};
    if (encoder) {
      append_text(random, *encoder, batch);
    } else if (task_.kind == "random") {
      append_random(random, batch);
    } else {
      append_copy(random, batch);
    }
  }
  return batch;
}

}  // namespace oryx
