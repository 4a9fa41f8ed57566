#include "base/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "base/files.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A file with this header and `data` bytes of data.
std::string file_of(const std::string& header, size_t data, uint64_t announced = ~uint64_t{0}) {
  uint64_t size = announced == ~uint64_t{0} ? header.size() : announced;
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  return file + header + std::string(data, '\1');
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::map<std::string, StoredTensor> parse(const std::string& file) {
  return parse_safetensors(bytes_of(file), "f");
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  TemporaryDirectory directory;
  const std::vector<float> a{1.5f, -2, 3, 4, 5, 6};
  const std::vector<int64_t> b{7};
  const std::vector<std::pair<std::string, StoredTensor>> tensors{
      {"z \"quoted\" \xc3\xbc", {Dtype::f32, {2, 3}, std::as_bytes(std::span(a))}},
      {"empty", {Dtype::bf16, {0, 4}, {}}},
      {"scalar", {Dtype::i64, {}, std::as_bytes(std::span(b))}},
      {"odd", {Dtype::u8, {3}, std::as_bytes(std::span(a)).first(3)}}};
  write_safetensors(directory / "f", tensors, {{"format", "pt"}, {"note", "x\ny"}});

  SafetensorsReader first(directory / "f");
  const SafetensorsReader reader(std::move(first));
  ASSERT_EQ(reader.tensors().size(), tensors.size());
  EXPECT_EQ(reader.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"note", "x\ny"}}));
  const std::byte* position = nullptr;
  for (const auto& [name, expected] : tensors) {
    const StoredTensor& read = reader.tensors().at(name);
    EXPECT_EQ(read.dtype, expected.dtype);
    EXPECT_EQ(read.shape, expected.shape);
    ASSERT_EQ(read.data.size(), expected.data.size());
    if (!expected.data.empty()) {
      EXPECT_EQ(std::memcmp(read.data.data(), expected.data.data(), expected.data.size()), 0);
    }
    if (position) {
      EXPECT_EQ(read.data.data(), position) << "not in the order given";
    }
    position = read.data.data() + read.data.size();
  }
  const std::string file = read_text_file(directory / "f");
  uint64_t header = 0;
  std::memcpy(&header, file.data(), 8);
  EXPECT_EQ(header % 8, 0u);

  write_safetensors(directory / "none", {});
  EXPECT_TRUE(SafetensorsReader(directory / "none").tensors().empty());
}

TEST(Safetensors, WriterRefusesWhatNobodyCouldRead) {
  TemporaryDirectory directory;
  const float value = 1;
  const StoredTensor good{Dtype::f32, {1}, std::as_bytes(std::span(&value, 1))};
  StoredTensor wrong = good;
  wrong.shape = {2};
  EXPECT_INPUT_ERROR(write_safetensors(directory / "f", {{"a", wrong}}), "tensor 'a' has 4 bytes");
  EXPECT_INPUT_ERROR(write_safetensors(directory / "f", {{"a", good}, {"a", good}}), "the name is taken");
  EXPECT_INPUT_ERROR(write_safetensors(directory / "f", {{"__metadata__", good}}), "the name is taken");
  EXPECT_INPUT_ERROR(write_safetensors(directory / "f", {{"\xff", good}}), "not valid UTF-8");
  EXPECT_INPUT_ERROR(write_safetensors(directory / "f", {{"a", good}}, {{"k", "\xff"}}), "not valid UTF-8");
  EXPECT_INPUT_ERROR(write_safetensors(directory / "no/f", {{"a", good}}), "No such file");
}

TEST(Safetensors, AcceptsEveryDtypeAndAnyOrderOfTheHeader) {
  for (const auto& [name, size] : std::vector<std::pair<std::string, size_t>>{{"F64", 8},
                                                                              {"F32", 4},
                                                                              {"F16", 2},
                                                                              {"BF16", 2},
                                                                              {"I64", 8},
                                                                              {"I32", 4},
                                                                              {"I16", 2},
                                                                              {"I8", 1},
                                                                              {"U8", 1},
                                                                              {"BOOL", 1}}) {
    const auto tensors =
        parse(file_of(fmt::format("{{{}}}", tensor("a", name, "[3]", fmt::format("[0,{}]", 3 * size))), 3 * size));
    EXPECT_EQ(dtype_name(tensors.at("a").dtype), name);
    EXPECT_EQ(dtype_size(tensors.at("a").dtype), size);
  }
  const auto tensors = parse(file_of("{" + tensor("b", "U8", "[2]", "[1,3]") + "," + tensor("z", "U8", "[0]", "[1,1]") +
                                         "," + tensor("a", "U8", "[1]", "[0,1]") + "}   ",
                                     3));
  EXPECT_EQ(tensors.at("b").data.data() - tensors.at("a").data.data(), 1);
}

TEST(Safetensors, RefusesABrokenHeader) {
  EXPECT_INPUT_ERROR(parse(""), "0 bytes are too few");
  EXPECT_INPUT_ERROR(parse("1234567"), "7 bytes are too few");
  EXPECT_INPUT_ERROR(parse(file_of("{}", 0, uint64_t{1} << 60)), "announces a header of 1152921504606846976 bytes");
  EXPECT_INPUT_ERROR(parse(file_of("{}", 0, ~uint64_t{0} - 1)), "announces a header");
  EXPECT_INPUT_ERROR(parse(file_of("{}", 0, 3)), "announces a header");
  EXPECT_INPUT_ERROR(parse(file_of("", 0)), "not a JSON object");
  EXPECT_INPUT_ERROR(parse(file_of("[]", 0)), "not a JSON object");
  EXPECT_INPUT_ERROR(parse(file_of("{", 0)), "f: header: line 1");
  EXPECT_INPUT_ERROR(parse(file_of("{\"\xff\":1}", 0)), "not valid JSON");
  EXPECT_INPUT_ERROR(parse(file_of("{\"a\":" + std::string(100000, '['), 0)), "nested deeper");
  const std::string one = tensor("a", "U8", "[1]", "[0,1]");
  EXPECT_INPUT_ERROR(parse(file_of("{" + one + "," + one + "}", 1)), "'a' appears twice");
  EXPECT_INPUT_ERROR(parse(file_of(R"({"__metadata__":{"a":1}})", 0)), "object of strings");
  EXPECT_INPUT_ERROR(parse(file_of(R"({"__metadata__":[]})", 0)), "object of strings");
}

TEST(Safetensors, RefusesABrokenTensor) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets, size_t data = 4) {
    parse(file_of(fmt::format("{{{}}}", tensor("a", dtype, shape, offsets)), data));
  };
  EXPECT_NO_THROW(one("F32", "[1]", "[0,4]"));
  EXPECT_INPUT_ERROR(one("F8_E4M3", "[4]", "[0,4]"), "has the dtype F8_E4M3; Oryx reads");
  EXPECT_INPUT_ERROR(one("F32", "[2]", "[0,4]"), "4 bytes are stored, but its dtype and shape make 8");
  EXPECT_INPUT_ERROR(one("F64", "[1]", "[0,4]"), "4 bytes are stored");
  EXPECT_INPUT_ERROR(one("F32", "[-1]", "[0,4]"), "not negative");
  EXPECT_INPUT_ERROR(one("F32", "[1.0]", "[0,4]"), "must hold integers");
  EXPECT_INPUT_ERROR(one("F32", "1", "[0,4]"), "shape must be an array");
  EXPECT_INPUT_ERROR(one("F32", "[4294967296,4294967296]", "[0,4]"), "too large");
  EXPECT_INPUT_ERROR(one("F32", "[9223372036854775807,0]", "[0,0]"), "too large");
  EXPECT_INPUT_ERROR(one("F32", "[18446744073709551615]", "[0,4]"), "too large");
  EXPECT_INPUT_ERROR(one("F32", "[99999999999999999999999]", "[0,4]"), "must hold integers");
  EXPECT_INPUT_ERROR(one("F32", "[" + std::string(100, '1') + "]", "[0,4]"), "must hold integers");
  std::string many = "1";
  for (int i = 0; i < 40; ++i) many += ",1";
  EXPECT_INPUT_ERROR(one("F32", "[" + many + "]", "[0,4]"), "at most 32 sizes");
  EXPECT_INPUT_ERROR(one("F32", "[1]", "[0]"), "[begin, end]");
  EXPECT_INPUT_ERROR(one("F32", "[1]", "[4,0]"), "do not lie within the 4 bytes");
  EXPECT_INPUT_ERROR(one("F32", "[2]", "[0,8]"), "cut short");
  EXPECT_INPUT_ERROR(one("F32", "[1]", "[18446744073709551612,18446744073709551615]"), "do not lie within");
  EXPECT_INPUT_ERROR(parse(file_of(R"({"a":{"dtype":"F32"}})", 0)), "must have dtype, shape and data_offsets");
  EXPECT_INPUT_ERROR(parse(file_of(R"({"a":3})", 0)), "must have dtype, shape and data_offsets");
  EXPECT_INPUT_ERROR(parse(file_of(R"({"a":{"dtype":1,"shape":[],"data_offsets":[0,4]}})", 4)),
                     "dtype must be a string");
}

TEST(Safetensors, RefusesOverlapsAndHoles) {
  const auto two = [](const std::string& a, const std::string& b, size_t data) {
    parse(file_of("{" + tensor("a", "U8", "[2]", a) + "," + tensor("b", "U8", "[2]", b) + "}", data));
  };
  EXPECT_NO_THROW(two("[0,2]", "[2,4]", 4));
  EXPECT_NO_THROW(two("[2,4]", "[0,2]", 4));
  EXPECT_INPUT_ERROR(two("[0,2]", "[1,3]", 3), "they overlap");
  EXPECT_INPUT_ERROR(two("[0,2]", "[0,2]", 2), "they overlap");
  EXPECT_INPUT_ERROR(two("[0,2]", "[3,5]", 5), "a hole");
  EXPECT_INPUT_ERROR(two("[1,3]", "[3,5]", 5), "a hole");
  EXPECT_INPUT_ERROR(two("[0,2]", "[2,4]", 5), "1 bytes of data follow");
}

TEST(Safetensors, ReaderNamesTheFile) {
  TemporaryDirectory directory;
  EXPECT_INPUT_ERROR(SafetensorsReader(directory / "none"), "none: No such file or directory");
  EXPECT_INPUT_ERROR(SafetensorsReader(directory.path()), "not a file");
  write_file_atomically(directory / "empty", "");
  EXPECT_INPUT_ERROR(SafetensorsReader(directory / "empty"), "empty or not a file");
  write_file_atomically(directory / "text", "hello, this is text");
  EXPECT_INPUT_ERROR(SafetensorsReader(directory / "text"), "text: not a safetensors file");
}

}  // namespace
}  // namespace oryx
