#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/json.h"
#include "expect_error.h"

namespace oryx {
namespace {

TEST(Fields, ReadsCheckedTypes) {
  const Json json = parse_json(
      R"({"i": 3, "f": 2.5, "b": false, "s": "text", "l": ["a", "b"], "c": "silu", "t": {"x": 1}, "n": null})", "c");
  Fields fields(json, "c.json");
  EXPECT_EQ(fields.integer("i"), 3);
  EXPECT_EQ(fields.number("i"), 3.0);
  EXPECT_EQ(fields.number("f"), 2.5);
  EXPECT_FALSE(fields.boolean("b", true));
  EXPECT_EQ(fields.string("s"), "text");
  EXPECT_EQ(fields.strings("l"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(fields.choice("c", {"silu", "none"}), "silu");
  Fields table = fields.table("t");
  EXPECT_EQ(table.integer("x"), 1);
  table.finish();
  EXPECT_TRUE(fields.has("n"));
  EXPECT_TRUE(fields.raw("n").is_null());
  EXPECT_TRUE(fields.raw("absent").is_null());
  EXPECT_NO_THROW(fields.finish());
}

TEST(Fields, FallsBackOnlyWhenAbsent) {
  const Json json = parse_json(R"({"n": null})", "c");
  Fields fields(json, "c");
  EXPECT_EQ(fields.integer("a", 5), 5);
  EXPECT_EQ(fields.number("a", -1.5), -1.5);
  EXPECT_TRUE(fields.boolean("a", true));
  EXPECT_EQ(fields.string("a", "x"), "x");
  EXPECT_EQ(fields.strings("a", std::vector<std::string>{"x"}).size(), 1u);
  EXPECT_EQ(fields.choice("a", {"p", "q"}, "q"), "q");
  EXPECT_INPUT_ERROR(fields.integer("n", 5), "c: 'n' must be an integer from 0 to 2^63-1, not null");
  EXPECT_INPUT_ERROR(fields.integer("a"), "c: 'a' is missing");
  EXPECT_INPUT_ERROR(fields.string("a"), "c: 'a' is missing");
}

TEST(Fields, RefusesOtherTypes) {
  Json json = parse_json(R"({"f": 3.0, "neg": -1, "big": 9223372036854775808, "s": "1", "l": [1], "c": "sillu"})", "c");
  json["inf"] = std::numeric_limits<double>::infinity();
  Fields fields(json, "c");
  EXPECT_INPUT_ERROR(fields.integer("f"), "'f' must be an integer");
  EXPECT_INPUT_ERROR(fields.integer("neg"), "not -1");
  EXPECT_INPUT_ERROR(fields.integer("big"), "not 9223372036854775808");
  EXPECT_INPUT_ERROR(fields.integer("s"), "not \"1\"");
  EXPECT_INPUT_ERROR(fields.number("s"), "'s' must be a number");
  EXPECT_INPUT_ERROR(fields.number("inf"), "finite");
  EXPECT_INPUT_ERROR(fields.boolean("neg"), "true or false");
  EXPECT_INPUT_ERROR(fields.string("neg"), "must be a string");
  EXPECT_INPUT_ERROR(fields.strings("l"), "array of strings");
  EXPECT_INPUT_ERROR(fields.strings("s"), "array of strings");
  EXPECT_INPUT_ERROR(fields.choice("c", {"silu", "none"}), "one of silu, none, not \"sillu\"; did you mean 'silu'?");
  EXPECT_INPUT_ERROR(fields.choice("l", {"silu", "none"}), "not an array");
  EXPECT_INPUT_ERROR(fields.table("s"), "c: [s]: must be a table");
  EXPECT_INPUT_ERROR(Fields(json["l"], "c"), "c: must be a table");
}

TEST(Fields, FinishRefusesUnknownKeysWithASuggestion) {
  const Json json = parse_json(R"({"train": {"learning_rat": 1, "sub": {"zzzzzzzz": 1}}})", "c");
  Fields fields(json, "r.toml");
  Fields train = fields.table("train");
  train.number("learning_rate", 1);
  Fields sub = train.table("sub");
  sub.integer("alpha", 1);
  EXPECT_NO_THROW(fields.finish());
  EXPECT_INPUT_ERROR(train.finish(), "r.toml: [train]: unknown key 'learning_rat'; did you mean 'learning_rate'?");
  EXPECT_INPUT_ERROR(sub.finish(), "r.toml: [train.sub]: unknown key 'zzzzzzzz'; the keys here are alpha");
}

TEST(DidYouMean, FindsTheNearest) {
  const std::vector<std::string> known{"attention", "recurrent", "tail"};
  EXPECT_EQ(did_you_mean("atention", known), "; did you mean 'attention'?");
  EXPECT_EQ(did_you_mean("recurent", known), "; did you mean 'recurrent'?");
  EXPECT_EQ(did_you_mean("TAIL", known), "; did you mean 'tail'?");
  EXPECT_EQ(did_you_mean("tial", known), "; did you mean 'tail'?");
  EXPECT_EQ(did_you_mean("something", known), "");
  EXPECT_EQ(did_you_mean("x", {"y"}), "; did you mean 'y'?");
  EXPECT_EQ(did_you_mean("", known), "");
  EXPECT_EQ(did_you_mean(std::string(100000, 'a'), known), "");
}

}  // namespace
}  // namespace oryx
