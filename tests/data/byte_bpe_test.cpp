#include <gtest/gtest.h>

#include <map>

#include "base/json.h"
#include "base/random.h"
#include "data/byte_pair_merges.h"
#include "data/regex_splitter.h"
#include "data/text_file.h"
#include "data/tokenizer.h"
#include "expect_error.h"

namespace oryx {
namespace {

const std::string kGolden = ORYX_SOURCE_DIR "/tests/data/golden/";

std::vector<Json> lines_of(const std::string& name) {
  std::vector<Json> lines;
  const std::string text = read_utf8_file(kGolden + name);
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    lines.push_back(parse_json(std::string_view(text).substr(at, end - at), name));
    at = end + 1;
  }
  return lines;
}

std::string json_of(const std::string& name) {
  return read_utf8_file(kGolden + name + ".json.zst");
}

const Tokenizer& tokenizer(const std::string& name) {
  static std::map<std::string, Tokenizer> loaded;
  auto found = loaded.find(name);
  if (found == loaded.end()) found = loaded.emplace(name, Tokenizer::parse(json_of(name), name)).first;
  return found->second;
}

class ByteBpe : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Tokenizers, ByteBpe, testing::Values("gpt2", "gpt_neox", "llama3", "qwen2"),
                         [](const auto& info) { return std::string(info.param); });

// tests/data/golden/make.py tells where the expected values come from.
TEST_P(ByteBpe, AgreesWithTheReference) {
  const std::vector<Json> strings = lines_of("strings.jsonl.zst");
  const std::vector<Json> expected = lines_of(std::string(GetParam()) + ".ids.jsonl.zst");
  ASSERT_GE(strings.size(), 2000u);
  ASSERT_EQ(strings.size(), expected.size());
  const Tokenizer& t = tokenizer(GetParam());
  Encoder encoder(t);  // remembers words from one string to the next
  int differences = 0;
  for (size_t i = 0; i < strings.size() && differences < 10; ++i) {
    const auto text = strings[i].get<std::string>();
    const auto ids = expected[i]["ids"].get<std::vector<int32_t>>();
    const auto plain = expected[i].contains("plain") ? expected[i]["plain"].get<std::vector<int32_t>>() : ids;
    const auto decoded = expected[i].contains("decoded") ? expected[i]["decoded"].get<std::string>() : text;
    EXPECT_EQ(t.encode(text, SpecialTokens::as_ids), ids) << strings[i];
    EXPECT_EQ(t.encode(text), plain) << strings[i];
    EXPECT_EQ(t.decode(ids), decoded) << strings[i];
    std::vector<int32_t> again;
    encoder.encode(text, again);
    EXPECT_EQ(again, plain) << strings[i];
    differences += HasFailure();
  }
}

TEST_P(ByteBpe, KeepsAnyBytes) {
  const Tokenizer& t = tokenizer(GetParam());
  const bool neox = std::string(GetParam()) == "gpt_neox";  // has no tokens for bytes that never occur in UTF-8
  const bool normalizes = neox || std::string(GetParam()) == "qwen2";
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random{seed};
    std::string bytes;
    for (auto n = random.below(40); n > 0; --n) {
      // Two bytes that are never part of a character that NFC would change.
      bytes += normalizes ? (neox ? "\x80\xe4\xb8\x96 a" : "\xff\xe4\xb8\x96 a")[random.below(6)]
                          : static_cast<char>(random.below(256));
    }
    EXPECT_EQ(t.decode(t.encode(bytes)), bytes) << seed;
  }
}

TEST_P(ByteBpe, LongRunsAreNoTrouble) {
  const Tokenizer& t = tokenizer(GetParam());
  for (const std::string& run : {std::string(200'000, ' '), std::string(200'000, 'a'), std::string(200'000, '\n'),
                                 " x" + std::string(200'000, '='), std::string(200'000, '\x80')}) {
    EXPECT_EQ(t.decode(t.encode(run)), run);
  }
}

TEST(ByteBpeTokens, SpecialOnes) {
  EXPECT_EQ(tokenizer("gpt2").eos_id(), 50256);
  EXPECT_EQ(tokenizer("gpt2").bos_id(), 50256);
  EXPECT_EQ(tokenizer("gpt2").vocab_size(), 50257);
  EXPECT_EQ(tokenizer("gpt_neox").eos_id(), 0);
  EXPECT_EQ(tokenizer("gpt_neox").vocab_size(), 50277);
  EXPECT_NE(tokenizer("llama3").bos_id(), tokenizer("llama3").eos_id());
  EXPECT_STREQ(tokenizer("llama3").file_name(), "tokenizer.json");
}

// The definition, step by step.
TEST(BytePairMerges, TakesTheLowestRankThenTheLeftmost) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random{seed};
    const auto letters = static_cast<int32_t>(2 + random.below(3));
    std::map<std::pair<int32_t, int32_t>, std::pair<int32_t, int32_t>> merges;  // pair -> rank, merged
    BytePairMerges fast;
    for (int32_t rank = 0; rank < 30; ++rank) {
      const auto left = static_cast<int32_t>(random.below(letters + rank));
      const auto right = static_cast<int32_t>(random.below(letters + rank));
      merges[{left, right}] = {rank, letters + rank};
      fast.add(left, right, rank, letters + rank);
    }
    std::vector<int32_t> word(random.below(60));
    for (int32_t& id : word) id = static_cast<int32_t>(random.below(letters));
    std::vector<int32_t> expected = word;
    for (;;) {
      int32_t best = INT32_MAX;
      size_t at = 0;
      for (size_t i = 0; i + 1 < expected.size(); ++i) {
        const auto found = merges.find({expected[i], expected[i + 1]});
        if (found != merges.end() && found->second.first < best) best = found->second.first, at = i;
      }
      if (best == INT32_MAX) break;
      expected[at] = merges.at({expected[at], expected[at + 1]}).second;
      expected.erase(expected.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    fast.apply(word);
    EXPECT_EQ(word, expected) << seed;
  }
}

TEST(RegexSplitter, KeepsWhatMatchesAndWhatDoesNot) {
  const auto split = [](const std::string& pattern, const std::string& text) {
    std::vector<std::string_view> pieces;
    RegexSplitter(pattern, "test").split(text, pieces);
    std::string joined;
    for (const auto piece : pieces) joined += std::string(piece) + "|";
    return joined;
  };
  EXPECT_EQ(split("a+", "xaaya"), "x|aa|y|a|");
  EXPECT_EQ(split("b", ""), "");
  EXPECT_EQ(split("q*", "xy"), "xy|");
  EXPECT_EQ(split("\\s", "a\u00a0b\u180ec"), "a|\u00a0|b\u180ec|");
  EXPECT_EQ(split("[^\\s]+", "a\u2003b"), "a|\u2003|b|");
  EXPECT_INPUT_ERROR(RegexSplitter("(a", "here"), "here: not a regular expression");
  EXPECT_INPUT_ERROR(RegexSplitter("[a&&b]", "here"), "&&");
  EXPECT_INPUT_ERROR(RegexSplitter("[[:alpha:]]", "here"), "brackets");
}

TEST(TokenizerJson, RefusesWhatItDoesNotSupport) {
  const Json good = parse_json(json_of("qwen2"), "qwen2");
  const auto error_with = [&](const std::string& pointer, const Json& value) {
    Json changed = good;
    changed[Json::json_pointer(pointer)] = value;
    return input_error_of([&] { Tokenizer::parse(changed.dump(), "t.json"); });
  };
  const auto expect = [&](const std::string& pointer, const Json& value, const std::string& words) {
    const std::string message = error_with(pointer, value);
    EXPECT_NE(message.find(words), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with("t.json: ")) << message;
  };
  expect("/model", 5, "\"model\" must be an object");
  expect("/model/type", "Unigram", "the model is Unigram");
  expect("/model/byte_fallback", true, "byte_fallback");
  expect("/model/dropout", 0.1, "dropout");
  expect("/model/unk_token", "<unk>", "unk_token");
  expect("/model/vocab", Json::object(), "no token for the byte 0x00");
  expect("/model/vocab/a", -1, "token id -1");
  expect("/model/vocab/a", "x", "must be an integer");
  expect("/model/vocab/a", 5000000, "token id 5000000");
  expect("/model/vocab/a", 1, "used twice");
  expect("/model/merges/0", "a b c", "two tokens");
  expect("/model/merges/0", Json::array({"a", "\u0120nothing"}), "no token");
  expect("/normalizer", {{"type", "NFKC"}}, "NFKC");
  expect("/pre_tokenizer", {{"type", "Whitespace"}}, "Whitespace");
  expect("/pre_tokenizer", nullptr, "none");
  expect("/pre_tokenizer/pretokenizers/0/behavior", "Removed", "Removed");
  expect("/pre_tokenizer/pretokenizers/0/pattern/Regex", "(", "not a regular expression");
  expect("/pre_tokenizer/pretokenizers/1/add_prefix_space", true, "add_prefix_space");
  expect("/decoder", nullptr, "decoder");
  expect("/added_tokens/0/lstrip", true, "lstrip");
  expect("/added_tokens", Json::array(), "ends a document");
  EXPECT_INPUT_ERROR(Tokenizer::parse("{\"a\": 1", "t.json"), "t.json: line 1");
  EXPECT_INPUT_ERROR(Tokenizer::parse("{}", "t.json"), "no \"model\"");
}

}  // namespace
}  // namespace oryx
