#include "base/json.h"

#include <gtest/gtest.h>

#include <chrono>

#include "base/files.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

TEST(ParseJson, KeepsValuesAndOrder) {
  const Json json =
      parse_json(R"({"z": [1, -2, 3.5, true, null, "ü"], "a": {"b": {}}, "big": 18446744073709551615})", "x");
  EXPECT_EQ(json.dump(), R"({"z":[1,-2,3.5,true,null,"ü"],"a":{"b":{}},"big":18446744073709551615})");
  EXPECT_EQ(json["a"]["b"], Json::object());
  EXPECT_EQ(parse_json("7", "x"), 7);
  EXPECT_EQ(parse_json(" [] ", "x"), Json::array());
}

TEST(ParseJson, SaysWhereItIsWrong) {
  EXPECT_INPUT_ERROR(parse_json("{\"a\": 1,\n \"b\": }", "config.json"),
                     "config.json: line 2, column 7: not valid JSON");
  EXPECT_INPUT_ERROR(parse_json("", "c"), "c: empty");
  EXPECT_INPUT_ERROR(parse_json(" \n", "c"), "c: empty");
  EXPECT_INPUT_ERROR(parse_json("{} x", "c"), "c: line 1, column 4");
  EXPECT_INPUT_ERROR(parse_json("{\"a\": NaN}", "c"), "not valid JSON");
  EXPECT_INPUT_ERROR(parse_json("// comment\n{}", "c"), "not valid JSON");
  EXPECT_INPUT_ERROR(parse_json("[1e999]", "c"), "not valid JSON");
  EXPECT_INPUT_ERROR(parse_json("\"\xff\xfe\"", "c"), "not valid JSON");
  EXPECT_INPUT_ERROR(parse_json("{\"a\": \"" + std::string(100000, 'x'), "c"), "not valid JSON");
}

TEST(ParseJson, RefusesDuplicateKeysAtAnyLevel) {
  EXPECT_INPUT_ERROR(parse_json(R"({"a": 1, "a": 1})", "c"), "the key 'a' appears twice");
  EXPECT_INPUT_ERROR(parse_json(R"({"x": [{"a": 1, "\u0061": 2}]})", "c"), "the key 'a' appears twice");
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": {"a": 1}}])", "c"));
}

TEST(ParseJson, RefusesDeepNesting) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(64), "c"));
  EXPECT_INPUT_ERROR(parse_json(nested(65), "c"), "nested deeper than 64");
  EXPECT_INPUT_ERROR(parse_json(std::string(1000000, '['), "c"), "nested deeper than 64");
}

TEST(ParseJson, TakesTimeInProportionToTheText) {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) text += (i ? ",\"" : "\"") + std::to_string(i) + "\":0";
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_json(text + "}", "c").size(), 200000u);
  // A search of all keys at each insertion takes minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(LoadJson, NamesTheFile) {
  TemporaryDirectory directory;
  write_file_atomically(directory / "a.json", "{\"a\": 1}");
  EXPECT_EQ(load_json(directory / "a.json")["a"], 1);
  EXPECT_INPUT_ERROR(load_json(directory / "none.json"), "none.json: No such file or directory");
  EXPECT_INPUT_ERROR(load_json(directory.path()), "Is a directory");
}

}  // namespace
}  // namespace oryx
