#include "data/tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <cstdlib>
#include <map>

#include "base/files.h"
#include "data/text_file.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

const char* kBook = ORYX_SOURCE_DIR "/data/books/valid.txt.zst";

std::string utf8(uint32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
  if (c < 0x10000)
    return {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
            static_cast<char>(0x80 | (c & 63))};
  return {static_cast<char>(0xf0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
          static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
}

class TokenizerTest : public testing::TestWithParam<const char*> {
 protected:
  // Trained once for each model type.
  const Tokenizer& tokenizer() {
    static std::map<std::string, Tokenizer> trained;
    const auto found = trained.find(GetParam());
    if (found != trained.end()) return found->second;
    const TemporaryDirectory directory;
    const auto path = directory.path() / "tokenizer.model";
    Tokenizer::train({kBook}, 1024, path, {.model_type = GetParam()});
    return trained.emplace(GetParam(), Tokenizer::load(path)).first->second;
  }
};

INSTANTIATE_TEST_SUITE_P(Types, TokenizerTest, testing::Values("bpe", "unigram"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(TokenizerTest, KeepsEveryString) {
  using namespace std::string_literals;
  std::string all_bytes;
  for (int i = 0; i < 256; ++i) all_bytes += static_cast<char>(i);
  for (const std::string& text : {""s,
                                  " "s,
                                  "a"s,
                                  "\n"s,
                                  "Hello, world!"s,
                                  " leading and trailing "s,
                                  std::string(1000, ' '),
                                  "a" + std::string(77, ' ') + "b"s,
                                  "\n\n\n\nx\n\n \n"s,
                                  "tabs\tand\r\nreturns\r\f\v"s,
                                  "\0 nul \0\0"s,
                                  "na\u00efve caf\u00e9 e\u0301 \u00bd \ufb01 \uff21"s,
                                  "\U0001F469\u200d\U0001F469\u200d\U0001F467 \U0001F1EB\U0001F1F7"s,
                                  "\u65e5\u672c\u8a9e \u0627\u0644\u0639\u0631\u0628\u064a\u0629"s,
                                  "\u2581 the space mark \u2581\u2581\u2584\u2585"s,
                                  "\ufeffbom \ufffd \u00a0\u3000\u2028\u200b"s,
                                  "<s></s><unk><pad><0x41>\u2581<|endoftext|>"s,
                                  all_bytes,
                                  "cut \xe2\x82"s,
                                  "\xff\xfe overlong \xc0\x80 surrogate \xed\xa0\x80 beyond \xf4\x90\x80\x80"s,
                                  "\xe2\x96"s,
                                  "\xe2\xe2\x96\x81\x81"s}) {
    const auto ids = tokenizer().encode(text);
    EXPECT_EQ(tokenizer().decode(ids), text);
    for (const int32_t id : ids) {
      EXPECT_NE(id, tokenizer().eos_id());
      EXPECT_NE(id, tokenizer().bos_id());
      EXPECT_NE(id, 0);  // unknown
    }
  }
}

TEST_P(TokenizerTest, KeepsEveryCodePoint) {
  std::string text;
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    text += utf8(c);
    if (c % 61 == 0) text += ' ';
  }
  EXPECT_TRUE(tokenizer().decode(tokenizer().encode(text)) == text);
}

TEST_P(TokenizerTest, CompressesTheBookItLearned) {
  const std::string text = read_utf8_file(kBook);
  const auto ids = tokenizer().encode(text);
  EXPECT_TRUE(tokenizer().decode(ids) == text);
  EXPECT_LT(ids.size(), text.size() / 2.6);
  EXPECT_EQ(tokenizer().vocab_size(), 1024);
}

// Word by word or all at once: the pieces are SentencePiece's own.
TEST_P(TokenizerTest, AgreesWithSentencePiece) {
  sentencepiece::SentencePieceProcessor model;
  ASSERT_TRUE(model.LoadFromSerializedProto(tokenizer().bytes()).ok());
  const std::string text = read_utf8_file(kBook).substr(0, 2000) + "  two  spaces\n\n\n\t \u00e9\n";
  const std::vector<int> expected = model.EncodeAsIds(text);
  EXPECT_EQ(tokenizer().encode(text), std::vector<int32_t>(expected.begin(), expected.end()));
}

TEST_P(TokenizerTest, LearnsTheSameModelAgain) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "again.model";
  Tokenizer::train({kBook}, 1024, path, {.model_type = GetParam()});
  EXPECT_TRUE(read_text_file(path) == tokenizer().bytes());
  EXPECT_EQ(Tokenizer::load(path).hash(), tokenizer().hash());
}

// A damaged model is refused or still keeps text; it never brings the program down.
TEST_P(TokenizerTest, SurvivesDamage) {
  const std::string& whole = tokenizer().bytes();
  const std::string text = "The weaver of Raveloe,\n\n  caf\u00e9 \u2581";
  size_t refused = 0, tries = 0;
  const auto check = [&](std::string bytes) {
    ++tries;
    try {
      const Tokenizer damaged = Tokenizer::parse(std::move(bytes), "damaged.model");
      EXPECT_EQ(damaged.decode(damaged.encode(text)), text);
    } catch (const InputError&) {
      ++refused;
    }
  };
  for (size_t size = 0; size < whole.size(); size += 211) check(whole.substr(0, size));
  EXPECT_EQ(refused, tries) << "a file cut short must be refused";
  for (size_t back = 1; back < 40; ++back) {
    check(whole.substr(0, whole.size() - back));
  }
  for (size_t at = 3; at < whole.size(); at += 397) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
    check(std::move(bytes));
  }
  EXPECT_GT(refused, tries / 4);
}

TEST_P(TokenizerTest, StreamsWholeCharacters) {
  const std::string text = "caf\u00e9 \U0001F600\U0001F600 \u65e5\u672c\n\u2581!";
  StreamDecoder decoder(tokenizer());
  std::string streamed;
  for (const int32_t id : tokenizer().encode(text)) {
    const std::string part = decoder.push(id);
    streamed += part;
    EXPECT_EQ(text.substr(0, streamed.size()), streamed);
    if (!part.empty()) {
      EXPECT_NE(static_cast<unsigned char>(text[streamed.size()]) & 0xc0, 0x80);
    }
  }
  EXPECT_EQ(streamed + decoder.finish(), text);
  EXPECT_EQ(decoder.finish(), "");
}

TEST_P(TokenizerTest, StreamReplacesWhatIsNoCharacter) {
  StreamDecoder decoder(tokenizer());
  const auto push = [&](std::string_view bytes) {
    std::string out;
    for (const int32_t id : tokenizer().encode(bytes)) out += decoder.push(id);
    return out;
  };
  EXPECT_EQ(push("\xf0\x9f\x98"), "");  // may become an emoji
  EXPECT_EQ(push("a"), "\ufffda");      // but did not
  EXPECT_EQ(push("\xe0"), "");
  EXPECT_EQ(push("\x80"), "\ufffd\ufffd");  // overlong
  EXPECT_EQ(push("\xff"), "\ufffd");
  EXPECT_EQ(push("\xe2\x82"), "");
  EXPECT_EQ(decoder.push(tokenizer().eos_id()), "");
  EXPECT_EQ(decoder.finish(), "\ufffd");
}

TEST_P(TokenizerTest, RefusesIdsOutside) {
  EXPECT_INPUT_ERROR(tokenizer().decode(std::vector<int32_t>{1024}), "token id 1024 is outside");
  EXPECT_INPUT_ERROR(tokenizer().decode(-1), "token id -1 is outside");
}

TEST(TokenizerLoad, RefusesWhatIsNoModel) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "x.model";
  EXPECT_INPUT_ERROR(Tokenizer::load(path), "cannot read");
  write_file_atomically(path, "");
  EXPECT_INPUT_ERROR(Tokenizer::load(path), "empty");
  write_file_atomically(path, "some words");
  EXPECT_INPUT_ERROR(Tokenizer::load(path), "not a SentencePiece model");
  write_file_atomically(path, "{\"model\": \"of no kind\"}");
  EXPECT_INPUT_ERROR(Tokenizer::load(path), "the pre-tokenizer none is not supported");
}

TEST(TokenizerTrain, RefusesBadInput) {
  const TemporaryDirectory directory;
  const auto out = directory.path() / "out.model", text = directory.path() / "text.txt";
  write_file_atomically(text, "just a few words\n");
  EXPECT_INPUT_ERROR(Tokenizer::train({}, 1024, out), "at least one file");
  EXPECT_INPUT_ERROR(Tokenizer::train({directory.path() / "none.txt"}, 1024, out), "none.txt");
  EXPECT_INPUT_ERROR(Tokenizer::train({text}, 100, out), "512");
  EXPECT_INPUT_ERROR(Tokenizer::train({text}, 1024, out, {.model_type = "word"}), "bpe or unigram");
  EXPECT_INPUT_ERROR(Tokenizer::train({text}, 1024, out), "cannot train a tokenizer of 1024 tokens");
  EXPECT_INPUT_ERROR(Tokenizer::train({text}, 1024, out, {.model_type = "unigram"}),
                     "cannot train a tokenizer of 1024");
  write_file_atomically(text, "\n<|endoftext|>\n");
  EXPECT_INPUT_ERROR(Tokenizer::train({text}, 1024, out), "no text in it");
  write_file_atomically(text, "\n\n\n\n");
  EXPECT_INPUT_ERROR(Tokenizer::train({text}, 1024, out), "only line ends");
  write_file_atomically(text, "latin\xe9");
  EXPECT_INPUT_ERROR(Tokenizer::train({text}, 1024, out), "not UTF-8");
  EXPECT_FALSE(std::filesystem::exists(out));
}

// Characters that SentencePiece keeps for itself, and words without end, neither stop training nor are lost.
TEST(TokenizerTrain, TakesAnyText) {
  const TemporaryDirectory directory;
  const auto text = directory.path() / "text.txt", out = directory.path() / "out.model";
  std::string odd =
      "\u2581 \u2585\u2047 <s> </s> <unk> <0x41>\ttab\t\ttab\r\n" + std::string(1, '\0') + "\u00a0\u3000 \ufeff\n";
  for (int i = 0; i < 3000; ++i) odd += std::to_string(i * 7919 % 10007) + "\u00e9\u65e5\U0001F600";
  odd += "\n" + std::string(100'000, ' ') + "\n" + read_utf8_file(kBook).substr(0, 50'000) + std::string(50'000, 'a');
  write_file_atomically(text, odd);
  for (const char* type : {"bpe", "unigram"}) {
    Tokenizer::train({text}, 600, out, {.model_type = type});
    const Tokenizer tokenizer = Tokenizer::load(out);
    EXPECT_TRUE(tokenizer.decode(tokenizer.encode(odd)) == odd) << type;
  }
}

TEST(TokenizerTrain, SamplesALargeCorpus) {
  const TemporaryDirectory directory;
  const auto out = directory.path() / "out.model", again = directory.path() / "again.model";
  Tokenizer::train({kBook}, 600, out, {.max_bytes = 100'000});
  Tokenizer::train({kBook}, 600, again, {.max_bytes = 100'000});
  EXPECT_TRUE(read_text_file(out) == read_text_file(again));
  Tokenizer::train({kBook}, 600, again);
  EXPECT_FALSE(read_text_file(out) == read_text_file(again));
}

}  // namespace
}  // namespace oryx
