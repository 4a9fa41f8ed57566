#include "data/document_reader.h"

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include "base/files.h"
#include "base/random.h"
#include "data/text_file.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

constexpr size_t kNoLimit = size_t{1} << 40;

struct Read {
  std::string text;
  int64_t line;
  DocumentPosition end;
  bool too_long;
};

std::vector<Read> read_from(const DocumentFile& file, DocumentPosition begin, size_t max_document) {
  DocumentReader reader(file, begin, max_document);
  std::vector<Read> all;
  for (;;) {
    const DocumentBatch batch = reader.next();
    if (batch.entries.empty()) return all;
    for (const auto& entry : batch.entries)
      all.push_back({std::string(batch.text(entry)), entry.line, entry.end, entry.too_long});
  }
}

std::string zstd(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 1));
  return packed;
}

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

class DocumentReaderTest : public testing::Test {
 protected:
  DocumentFile file(const std::string& name, const std::string& content) {
    FileWriter(directory_ / name).write(content);
    return list_document_files({directory_ / name}).at(0);
  }
  TemporaryDirectory directory_;
};

// Lines, separators, line ends of both kinds, empty documents, long runs: drawn at random.
std::string random_text(Random& random, int parts) {
  static const std::vector<std::string> pieces{
      "<|endoftext|>\n", "<|endoftext|>\r\n", "\n", "\r\n", "word", " ", "<|endoftext|>", "a line\n", "\u00e9\u4e16\n"};
  std::string text;
  for (int i = 0; i < parts; ++i) text += pieces[random.below(pieces.size())];
  return text;
}

TEST_F(DocumentReaderTest, FindsTheSameDocumentsAsTheWholeText) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random{seed};
    const std::string text = random_text(random, static_cast<int>(random.below(60)));
    const auto expected = split_documents(text);
    for (const std::string& stored : {text, zstd(text), gzip(text)}) {
      const DocumentFile written = file("a.txt", stored);
      const auto read = read_from(written, {}, kNoLimit);
      ASSERT_EQ(read.size(), expected.size()) << seed;
      for (size_t i = 0; i < read.size(); ++i) {
        EXPECT_EQ(read[i].text, expected[i]) << seed;
        // The rest of the documents follow from the end of this one.
        const auto rest = read_from(written, read[i].end, kNoLimit);
        ASSERT_EQ(rest.size(), read.size() - i - 1);
        if (rest.empty()) continue;
        EXPECT_EQ(rest[0].text, read[i + 1].text);
        EXPECT_EQ(rest[0].line, read[i + 1].line);
      }
    }
  }
}

TEST_F(DocumentReaderTest, LinesAreCountedFromOne) {
  const auto text = read_from(file("a.txt", "one\ntwo\n<|endoftext|>\nfour\n"), {}, kNoLimit);
  ASSERT_EQ(text.size(), 2u);
  EXPECT_EQ(text[0].line, 1);
  EXPECT_EQ(text[1].line, 4);
  const auto lines = read_from(file("a.jsonl", "{1}\n\n \r\n{4}\r\n{5}"), {}, kNoLimit);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].line, 1);
  EXPECT_EQ(lines[1].line, 4);
  EXPECT_EQ(lines[1].text, "{4}");
  EXPECT_EQ(lines[2].line, 5);
}

TEST_F(DocumentReaderTest, GoesOnAcrossBatchesAndReads) {
  std::string text;
  for (int i = 0; i < 30'000; ++i) text += fmt::format("document {} {}\n<|endoftext|>\n", i, std::string(i % 200, 'x'));
  const auto expected = split_documents(text);
  const auto read =
      read_from(file("a.txt.zst", zstd(text.substr(0, 999'999)) + zstd(text.substr(999'999))), {}, kNoLimit);
  ASSERT_EQ(read.size(), expected.size());
  for (size_t i = 0; i < read.size(); ++i) ASSERT_EQ(read[i].text, expected[i]);
}

TEST_F(DocumentReaderTest, CutsLongTextAtLineEndsOrBetweenCharacters) {
  std::string lines, unbroken;
  for (int i = 0; i < 100'000; ++i) lines += fmt::format("{}\n", i), unbroken += "\u4e16";
  const auto cut = read_from(file("a.txt", lines), {}, 1000);
  std::string joined;
  for (const Read& part : cut) {
    EXPECT_LE(part.text.size(), 1010u);
    joined += part.text + "\n";
  }
  EXPECT_EQ(joined, lines);
  joined.clear();
  for (const Read& part : read_from(file("a.txt", unbroken), {}, 1000)) {
    EXPECT_LE(part.text.size(), 1000u);
    EXPECT_EQ(part.text.size() % 3, 0u);
    joined += part.text;
  }
  EXPECT_EQ(joined, unbroken);
}

TEST_F(DocumentReaderTest, NamesLinesThatAreTooLong) {
  const std::string line(5'000'000, 'x');
  const auto read = read_from(file("a.jsonl", "{1}\n" + line + "\n{3}\n" + line), {}, 1000);
  ASSERT_EQ(read.size(), 4u);
  EXPECT_TRUE(read[1].too_long);
  EXPECT_EQ(read[1].line, 2);
  EXPECT_EQ(read[2].text, "{3}");
  EXPECT_TRUE(read[3].too_long);
  EXPECT_EQ(read_from(file("a.jsonl", "{1}\n" + line + "\n{3}\n"), read[1].end, 1000)[0].text, "{3}");
}

TEST_F(DocumentReaderTest, GivesWhatCameBeforeDamage) {
  std::string text;
  Random random{1};
  for (int i = 0; i < 100'000; ++i) text += fmt::format("{}\n<|endoftext|>\n", random.next());
  for (const auto& [name, packed] : {std::pair{"a.txt.gz", gzip(text)}, std::pair{"a.txt.zst", zstd(text)}}) {
    DocumentReader reader(file(name, packed.substr(0, packed.size() / 2)), {}, kNoLimit);
    EXPECT_FALSE(reader.next().entries.empty());
    const auto to_the_end = [&] {
      while (!reader.next().entries.empty()) {
      }
      return 0;
    };
    EXPECT_INPUT_ERROR(to_the_end(), "cannot unpack");
    EXPECT_INPUT_ERROR(reader.next(), "cannot unpack");
    EXPECT_EQ(reader.sha256(), sha256_of_file(directory_ / name));
  }
}

TEST_F(DocumentReaderTest, HashesTheFileAsItLies) {
  DocumentReader reader(file("a.txt", "abc"), {}, kNoLimit);
  reader.next();
  EXPECT_EQ(reader.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-2
}

TEST_F(DocumentReaderTest, ListsDirectoriesInOrder) {
  const auto root = directory_ / "in";
  std::filesystem::create_directories(root / "sub");
  for (const char* name : {"b.jsonl.gz", "a.txt", "sub/c.md.zst", "sub/picture.png", "config.json", "d.ndjson"})
    write_file_atomically(root / name, "x");
  std::vector<std::string> names;
  for (const DocumentFile& file : list_document_files({root, root / "config.json", root / "sub/picture.png"}))
    names.push_back(file.path.lexically_relative(root).string() + (file.format == TextFormat::jsonl ? " jsonl" : ""));
  EXPECT_EQ(names, (std::vector<std::string>{"a.txt", "b.jsonl.gz jsonl", "d.ndjson jsonl", "sub/c.md.zst",
                                             "config.json jsonl", "sub/picture.png"}));
  EXPECT_INPUT_ERROR(list_document_files({directory_ / "none"}), "none");
  std::filesystem::create_directories(directory_ / "empty");
  EXPECT_INPUT_ERROR(list_document_files({directory_ / "empty"}), "holds no files of text");
}

}  // namespace
}  // namespace oryx
