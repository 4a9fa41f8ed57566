#include "data/synthetic.h"

#include <gtest/gtest.h>

#include <numeric>

#include "data/text_file.h"
#include "expect_error.h"

namespace oryx {
namespace {

std::shared_ptr<const Tokenizer> tokenizer() {
  static const auto kTokenizer = std::make_shared<const Tokenizer>(
      Tokenizer::parse(read_utf8_file(ORYX_SOURCE_DIR "/tests/data/golden/llama3.json.zst"), "llama3"));
  return kTokenizer;
}

SyntheticTask task(const std::string& kind, const Json& table = Json::object()) {
  Fields fields(table, "t");
  SyntheticTask task = SyntheticTask::from_fields(kind, fields);
  fields.finish();
  return task;
}

void expect_same(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.targets, b.targets);
  EXPECT_EQ(a.cu_seqlens, b.cu_seqlens);
}

// Targets are the tokens that follow, and every batch is full.
void check_targets(const Batch& batch, int64_t batch_tokens) {
  ASSERT_EQ(static_cast<int64_t>(batch.tokens.size()), batch_tokens);
  ASSERT_EQ(batch.tokens.size(), batch.targets.size());
  ASSERT_EQ(batch.cu_seqlens.back(), batch_tokens);
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    for (int i = batch.cu_seqlens[s]; i < batch.cu_seqlens[s + 1]; ++i) {
      const bool last = i + 1 == batch.cu_seqlens[s + 1];
      if (batch.targets[i] != kIgnoredTarget) {
        EXPECT_TRUE(!last && batch.targets[i] == batch.tokens[i + 1]);
      }
    }
  }
}

TEST(Synthetic, CopySaysEverythingAgain) {
  for (const int64_t length : {3, 4, 9, 32}) {
    const SyntheticSource source(task("copy", {{"length", length}, {"vocab", 50}}), nullptr, 288, 288, 1);
    for (int64_t step = 0; step < 5; ++step) {
      const Batch batch = source.batch(step);
      check_targets(batch, 288);
      EXPECT_EQ(batch.sequences(), 288 / length);
      for (int64_t s = 0; s < batch.sequences(); ++s) {
        const int64_t end = batch.cu_seqlens[s + 1], n = (length - 1) / 2;
        EXPECT_EQ(batch.tokens[end - n - 1], 0);
        for (int64_t i = 0; i < n; ++i) EXPECT_EQ(batch.tokens[end - n + i], batch.tokens[end - 2 * n - 1 + i]);
      }
      EXPECT_EQ(batch.target_count(), 288 / length * ((length - 1) / 2));
    }
  }
}

TEST(Synthetic, AnswersStandEarlierInTheText) {
  for (const char* kind : {"phone_book", "needle"}) {
    for (const int64_t context : {400, 513}) {
      const SyntheticSource source(task(kind, {{"queries", 3}}), tokenizer(), context, 2 * context, 7);
      for (int64_t step = 0; step < 10; ++step) {
        const Batch batch = source.batch(step);
        check_targets(batch, 2 * context);
        int answers = 0;
        for (int64_t s = 0; s < batch.sequences(); ++s) {
          std::vector<int32_t> ids(batch.tokens.begin() + batch.cu_seqlens[s],
                                   batch.tokens.begin() + batch.cu_seqlens[s + 1]);
          const std::string text = tokenizer()->decode(ids);
          std::vector<int32_t> answer;
          for (size_t i = 0; i <= ids.size(); ++i) {
            const int64_t target = i < ids.size() ? batch.targets[batch.cu_seqlens[s] + i] : kIgnoredTarget;
            if (target != kIgnoredTarget) {
              answer.push_back(static_cast<int32_t>(target));
            } else if (!answer.empty()) {
              const std::string number = tokenizer()->decode(answer);  // with a space before it
              EXPECT_EQ(number.size(), 8u) << number;
              const size_t asked = text.rfind(" is:" + number), stated = text.find(number);
              EXPECT_NE(asked, std::string::npos) << text;
              EXPECT_LT(stated, asked);
              // The fact is about the name that is asked for.
              const size_t name = text.rfind(std::string(kind) == "needle" ? " for " : " of ", asked) +
                                  (std::string(kind) == "needle" ? 5 : 4);
              EXPECT_LT(text.find(text.substr(name, asked - name)), stated);
              answer.clear();
              ++answers;
            }
          }
        }
        EXPECT_EQ(answers, 6);
      }
    }
  }
}

TEST(Synthetic, TextsShorterThanTheContext) {
  for (const char* kind : {"phone_book", "needle"}) {
    const SyntheticSource source(task(kind, {{"queries", 2}, {"length", 256}}), tokenizer(), 512, 2048, 7);
    EXPECT_EQ(source.max_length(), 256);
    const Batch batch = source.batch(0);
    check_targets(batch, 2048);
    int64_t texts = 0;
    for (int64_t s = 0; s < batch.sequences(); ++s) {
      const auto targets = batch.targets.begin();
      int answers = 0;  // one follows a token that asks
      for (int64_t i = batch.cu_seqlens[s]; i < batch.cu_seqlens[s + 1]; ++i)
        answers += targets[i] != kIgnoredTarget && (i == batch.cu_seqlens[s] || targets[i - 1] == kIgnoredTarget);
      EXPECT_TRUE(answers == 2 || batch.cu_seqlens[s + 1] - batch.cu_seqlens[s] < 32) << s;
      texts += answers > 0;
    }
    EXPECT_EQ(texts, 8);
  }
}

TEST(Synthetic, RandomAsksForEveryToken) {
  const SyntheticSource source(task("random", {{"length", 96}, {"vocab", 7}}), nullptr, 288, 288, 1);
  const Batch batch = source.batch(3);
  check_targets(batch, 288);
  EXPECT_EQ(batch.sequences(), 3);
  EXPECT_EQ(batch.target_count(), 3 * 95);
  std::vector<int> counts(7);
  for (const int64_t token : batch.tokens) ++counts.at(token);
  for (const int count : counts) EXPECT_GT(count, 20);  // of 41, on average
}

TEST(Synthetic, BatchesAreAFunctionOfSeedAndStep) {
  for (const char* kind : {"copy", "phone_book", "needle", "random"}) {
    const SyntheticSource a(task(kind), tokenizer(), 384, 768, 1), b(task(kind), tokenizer(), 384, 768, 1),
        c(task(kind), tokenizer(), 384, 768, 2);
    expect_same(a.batch(5), b.batch(5));
    EXPECT_NE(a.batch(5).tokens, a.batch(6).tokens);
    EXPECT_NE(a.batch(5).tokens, c.batch(5).tokens);
  }
}

TEST(Synthetic, Refusals) {
  EXPECT_INPUT_ERROR(task("copy", {{"vocab", 1}}), "'vocab' must be 2 to");
  EXPECT_INPUT_ERROR(task("copy", {{"queries", 1}}), "unknown key 'queries'");
  EXPECT_INPUT_ERROR(task("needle", {{"needles", 2}, {"queries", 3}}), "at most the number of needles 2");
  EXPECT_INPUT_ERROR(task("phone_book", {{"querys", 3}}), "did you mean 'queries'");
  EXPECT_INPUT_ERROR(SyntheticSource(task("needle"), tokenizer(), 64, 64, 1), "too short for 4 needles");
  EXPECT_INPUT_ERROR(SyntheticSource(task("phone_book"), tokenizer(), 64, 64, 1), "too short for a phone book");
  EXPECT_INPUT_ERROR(task("needle", {{"length", 0}}), "'length' must be 1 to");
  EXPECT_INPUT_ERROR(SyntheticSource(task("needle", {{"length", 64}}), tokenizer(), 512, 512, 1), "too short for 4");
  EXPECT_INPUT_ERROR(SyntheticSource(task("needle"), nullptr, 512, 512, 1), "needs a 'tokenizer'");
  EXPECT_INPUT_ERROR(SyntheticSource(task("copy", {{"length", 100}}), nullptr, 128, 128, 1), "multiple of the 100");
}

}  // namespace
}  // namespace oryx
