#include "data/prepare.h"

#include <gtest/gtest.h>

#include <map>

#include "base/files.h"
#include "base/json.h"
#include "base/progress.h"
#include "data/corpus.h"
#include "data/sha256.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

class PrepareTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    Progress::set_quiet(true);
    models_ = new TemporaryDirectory;
    for (const int vocab : {600, 601})
      Tokenizer::train({ORYX_SOURCE_DIR "/data/books/valid.txt.zst"}, vocab, model(vocab));
  }
  static void TearDownTestSuite() { delete models_; }
  static fs::path model(int vocab) { return *models_ / fmt::format("{}.model", vocab); }

  fs::path write(const std::string& name, const std::string& content) {
    write_file_atomically(directory_ / name, content);
    return directory_ / name;
  }
  PrepareOptions options(const std::vector<fs::path>& inputs, const std::string& output = "shards") {
    PrepareOptions options;
    options.inputs = inputs;
    options.tokenizer = model(600);
    options.output = directory_ / output;
    return options;
  }
  // Every file of a directory.
  static std::map<std::string, std::string> content(const fs::path& directory) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(directory))
      files[entry.path().filename().string()] = read_text_file(entry.path());
    return files;
  }
  // A few megabytes in three files.
  std::vector<fs::path> corpus() {
    std::string text, lines;
    for (int i = 0; i < 12'000; ++i) {
      const std::string body = fmt::format("Document {} has {} words of some kind", i, std::string(i * 7 % 300, 'w'));
      text += body + "\n<|endoftext|>\n";
      lines += i % 1000 == 7 ? "{broken\n" : Json{{"id", i}, {"text", body + "!"}}.dump() + "\n";
    }
    return {write("a.txt", text), write("b.jsonl", lines), write("c.txt", "The last.")};
  }

  TemporaryDirectory directory_;
  static TemporaryDirectory* models_;
};
TemporaryDirectory* PrepareTest::models_ = nullptr;

TEST_F(PrepareTest, DirectoryHoldsTheSameTokensAsTheText) {
  const auto text =
      write("text.txt", "The first document.\nIt has two lines.\n<|endoftext|>\nThe second.\n<|endoftext|>\nI\n");
  const auto more = write("more.txt", "One more file.\n");
  PrepareOptions o = options({text, more});
  o.shard_tokens = 5;
  const PrepareResult made = prepare_token_shards(o);
  const fs::path shards = o.output;
  EXPECT_EQ(list_token_shards(shards).size(), 3u);  // "I" alone is short, so "One more file." goes with it
  const Tokenizer tokenizer = Tokenizer::load(shards);
  EXPECT_EQ(tokenizer.hash(), Tokenizer::load(model(600)).hash());

  const TokenCorpus from_text = TokenCorpus::from_text({text, more}, tokenizer);
  const TokenCorpus from_shards = TokenCorpus::from_shards({shards}, tokenizer);
  ASSERT_EQ(from_text.documents().size(), 4u);
  ASSERT_EQ(from_shards.documents().size(), 4u);
  EXPECT_EQ(made.documents, 4);
  EXPECT_EQ(from_text.tokens(), made.tokens);
  std::string decoded;
  for (size_t i = 0; i < 4; ++i) {
    const auto [begin, length] = from_text.documents()[i];
    EXPECT_EQ(from_shards.documents()[i].begin, begin);
    ASSERT_EQ(from_shards.documents()[i].length, length);
    std::vector<int64_t> a(length), b(length);
    from_text.copy(begin, length, a.data());
    from_shards.copy(begin, length, b.data());
    EXPECT_EQ(a, b);
    EXPECT_EQ(a.back(), tokenizer.eos_id());
    decoded += tokenizer.decode(std::vector<int32_t>(a.begin(), a.end())) + "|";
  }
  EXPECT_EQ(decoded, "The first document.\nIt has two lines.|The second.|I|One more file.|");

  EXPECT_INPUT_ERROR(TokenCorpus::from_shards({shards}, Tokenizer::load(model(601))), "another tokenizer");
  EXPECT_INPUT_ERROR(TokenCorpus::from_shards({directory_.path()}, tokenizer), "no token shards");
  EXPECT_INPUT_ERROR(TokenCorpus::from_shards({directory_ / "none"}, tokenizer), "none");
  write("more.txt", "<|endoftext|>\n");
  EXPECT_INPUT_ERROR(TokenCorpus::from_text({text, more}, tokenizer), "more.txt: no text in it");
}

TEST_F(PrepareTest, OutputDoesNotDependOnThreads) {
  PrepareOptions o = options(corpus(), "one");
  o.shard_tokens = 100'000;
  prepare_token_shards(o);
  const auto one = content(directory_ / "one");
  EXPECT_GT(one.size(), 5u);
  for (const int threads : {2, 5}) {
    o.threads = threads;
    o.output = directory_ / fmt::format("{}", threads);
    prepare_token_shards(o);
    EXPECT_EQ(content(o.output), one);
  }
  EXPECT_FALSE(fs::exists(directory_ / "one.partial"));
}

TEST_F(PrepareTest, ManifestSaysWhatWasReadAndWritten) {
  PrepareOptions o = options(corpus());
  o.shard_tokens = 100'000;
  const PrepareResult made = prepare_token_shards(o);
  EXPECT_EQ(made.corrupt, 12);
  EXPECT_EQ(made.documents, 12'000 + 11'988 + 1);
  const Json manifest = load_json(o.output / "manifest.json");
  EXPECT_EQ(manifest["documents"], made.documents);
  EXPECT_EQ(manifest["inputs"].size(), 3u);
  EXPECT_EQ(manifest["inputs"][1]["sha256"], sha256_of_file(directory_ / "b.jsonl"));
  EXPECT_EQ(manifest["inputs"][1]["corrupt"], 12);
  int64_t tokens = 0;
  for (const Json& shard : manifest["shards"]) {
    const fs::path path = o.output / shard["file"].get<std::string>();
    EXPECT_EQ(shard["sha256"], sha256_of_file(path));
    EXPECT_EQ(shard["tokens"], TokenShard(path).tokens().count);
    tokens += shard["tokens"].get<int64_t>();
  }
  EXPECT_EQ(tokens, made.tokens);
  EXPECT_EQ(manifest["tokens"], tokens);
  EXPECT_NE(manifest["problems"][0].get<std::string>().find("b.jsonl:8: "), std::string::npos);
}

TEST_F(PrepareTest, ResumesAfterAnyInterruption) {
  PrepareOptions o = options(corpus(), "whole");
  o.shard_tokens = 60'000;
  prepare_token_shards(o);
  const auto whole = content(o.output);

  o.output = directory_ / "parts";
  o.resume = true;
  int runs = 0;
  PrepareResult result;
  do {
    int batches = 0;
    o.stop = [&] { return ++batches == 2 + runs; };  // more each time: only a finished shard is progress
    o.threads = 1 + runs % 3;
    result = prepare_token_shards(o);
    EXPECT_EQ(fs::exists(o.output), result.finished);
    // What a kill while a shard is written leaves.
    if (!result.finished) write_file_atomically(o.output.string() + ".partial/99999.tokens", "half");
    ASSERT_LT(++runs, 50);
  } while (!result.finished);
  EXPECT_GT(runs, 2);
  EXPECT_EQ(content(o.output), whole);

  // A finished directory needs nothing more.
  o.stop = nullptr;
  const PrepareResult again = prepare_token_shards(o);
  EXPECT_TRUE(again.finished);
  EXPECT_EQ(again.new_text_bytes, 0);
  EXPECT_EQ(again.tokens, result.tokens);
}

TEST_F(PrepareTest, ResumeRefusesOtherInputs) {
  PrepareOptions o = options(corpus());
  o.shard_tokens = 60'000;
  int batches = 0;
  o.stop = [&] { return ++batches == 2; };
  ASSERT_FALSE(prepare_token_shards(o).finished);
  o.stop = nullptr;
  EXPECT_INPUT_ERROR(prepare_token_shards(o), "--resume");
  o.resume = true;
  PrepareOptions other = o;
  other.shard_tokens = 70'000;
  EXPECT_INPUT_ERROR(prepare_token_shards(other), "another text key or shard size");
  other = o;
  other.tokenizer = model(601);
  EXPECT_INPUT_ERROR(prepare_token_shards(other), "another tokenizer");
  other = o;
  other.inputs.pop_back();
  EXPECT_INPUT_ERROR(prepare_token_shards(other), "other files");
  write("c.txt", "changed");
  EXPECT_INPUT_ERROR(prepare_token_shards(o), "c.txt is not as it was");
  write("c.txt", "The last.");
  write("shards.partial/00000.tokens", "damage");
  EXPECT_INPUT_ERROR(prepare_token_shards(o), "00000.tokens is missing or damaged");
}

TEST_F(PrepareTest, CorruptLinesAreNamedAndLeftOut) {
  const auto lines = write("x.jsonl",
                           "{\"text\": \"one\"}\n{\"text\": \"two\"\n[3]\n{\"txt\": \"four\"}\n{\"text\": 5}\n\n"
                           "{\"text\": \"\"}\n{\"text\": \"\xff\"}\n{\"text\": \"nine\", \"more\": {\"text\": 1}}\n");
  const auto text = write("y.txt", "good\n<|endoftext|>\nbad \xc3( text\n<|endoftext|>\ngood too\n");
  PrepareOptions o = options({lines, text});
  std::vector<std::string> problems;
  o.on_problem = [&](const std::string& what) { problems.push_back(what); };
  const PrepareResult made = prepare_token_shards(o);
  EXPECT_EQ(made.documents, 4);
  EXPECT_EQ(made.empty, 1);
  EXPECT_EQ(made.corrupt, 6);
  ASSERT_EQ(problems.size(), 6u);
  const char* expected[] = {"x.jsonl:2: ",
                            "x.jsonl:3: not a JSON object",
                            "x.jsonl:4: the object has no \"text\"",
                            "x.jsonl:5: \"text\" is",
                            "x.jsonl:8: ",
                            "y.txt:3: not UTF-8"};
  for (int i = 0; i < 6; ++i) EXPECT_NE(problems[i].find(expected[i]), std::string::npos) << problems[i];

  o.strict = true;
  o.output = directory_ / "strict";
  EXPECT_INPUT_ERROR(prepare_token_shards(o), "x.jsonl:2: ");
  EXPECT_FALSE(fs::exists(directory_ / "strict"));
  EXPECT_FALSE(fs::exists(directory_ / "strict.partial"));
}

TEST_F(PrepareTest, OtherTextKeys) {
  PrepareOptions o = options({write("x.jsonl", "{\"body\": \"one\"}\n{\"text\": \"two\"}\n")});
  o.text_key = "body";
  const PrepareResult made = prepare_token_shards(o);
  EXPECT_EQ(made.documents, 1);
  EXPECT_EQ(made.corrupt, 1);
}

TEST_F(PrepareTest, Refusals) {
  const auto text = write("a.txt", "some text");
  prepare_token_shards(options({text}));
  EXPECT_INPUT_ERROR(prepare_token_shards(options({text})), "exists");
  EXPECT_INPUT_ERROR(prepare_token_shards(options({}, "x")), "name at least one");
  EXPECT_INPUT_ERROR(prepare_token_shards(options({directory_ / "none"}, "x")), "none");
  EXPECT_INPUT_ERROR(prepare_token_shards(options({directory_.path()}, "x")), "lies within the input");
  EXPECT_INPUT_ERROR(prepare_token_shards(options({write("b.jsonl", "x\n\n")}, "x")), "the first that was left out");
  EXPECT_INPUT_ERROR(prepare_token_shards(options({write("c.txt", "\n<|endoftext|>\n")}, "x")), "no document");
  EXPECT_FALSE(fs::exists(directory_ / "x"));
  EXPECT_FALSE(fs::exists(directory_ / "x.partial"));
}

}  // namespace
}  // namespace oryx
