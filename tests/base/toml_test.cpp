#include <gtest/gtest.h>

#include "base/files.h"
#include "base/json.h"
#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

TEST(ParseToml, ConvertsEveryKindOfValue) {
  const Json json = parse_toml(R"(
tokens = 1_000_000   # a comment. with. dots
lr = 3e-4
on = true
name = "ü \"x\""
path = 'C:\a.b'
list = [1, 2.5, "three", [4]]
inline = {a.b = 1}
[train.sub]
x = 0x10
[[runs]]
a = 1
[[runs]]
a = 2
)",
                               "recipe.toml");
  EXPECT_EQ(json["tokens"], 1000000);
  EXPECT_TRUE(json["tokens"].is_number_integer());
  EXPECT_EQ(json["lr"], 3e-4);
  EXPECT_EQ(json["on"], true);
  EXPECT_EQ(json["name"], "ü \"x\"");
  EXPECT_EQ(json["path"], "C:\\a.b");
  EXPECT_EQ(json["list"], (Json{1, 2.5, "three", Json::array({4})}));
  EXPECT_EQ(json["inline"]["a"]["b"], 1);
  EXPECT_EQ(json["train"]["sub"]["x"], 16);
  EXPECT_EQ(json["runs"][1]["a"], 2);
  EXPECT_EQ(parse_toml("", "x"), Json::object());
}

TEST(ParseToml, SaysWhereItIsWrong) {
  EXPECT_INPUT_ERROR(parse_toml("a = 1\nb = \n", "r.toml"), "r.toml: line 2, column 5: not valid TOML");
  EXPECT_INPUT_ERROR(parse_toml("a = 1\na = 2\n", "r.toml"), "r.toml: line 2");
  EXPECT_INPUT_ERROR(parse_toml("[a]\nb=1\n[a]\n", "r"), "line 3");
  EXPECT_INPUT_ERROR(parse_toml("a = \"\xff\"", "r"), "not valid TOML");
  EXPECT_INPUT_ERROR(parse_toml("a = 99999999999999999999", "r"), "not valid TOML");
  EXPECT_INPUT_ERROR(parse_toml("day = 2026-01-01", "r"), "dates and times");
}

TEST(ParseToml, RefusesDeepNesting) {
  const auto dotted = [](int parts) {
    std::string key = "a";
    for (int i = 1; i < parts; ++i) key += ".a";
    return key;
  };
  EXPECT_NO_THROW(parse_toml(dotted(60) + " = 1", "r"));
  EXPECT_INPUT_ERROR(parse_toml(dotted(200000) + " = 1", "r"), "a key of more than 64 parts");
  EXPECT_INPUT_ERROR(parse_toml("x = 1 # '''\n[" + dotted(200000) + "]", "r"), "line 2: a key of more than 64 parts");
  EXPECT_INPUT_ERROR(parse_toml("s = \"\"\"\n'\"\"\"\n" + dotted(200000) + " = 1", "r"), "line 3: a key of more than");
  EXPECT_INPUT_ERROR(parse_toml("s = \"\"\"x\"\"\"\"\n" + dotted(200000) + " = 1", "r"), "line 2: a key of more than");
  EXPECT_INPUT_ERROR(parse_toml("s = '''x'''''\n" + dotted(200000) + " = 1", "r"), "line 2: a key of more than");
  EXPECT_INPUT_ERROR(parse_toml("s = '\\'\n" + dotted(200000) + " = 1", "r"), "line 2: a key of more than");
  EXPECT_INPUT_ERROR(parse_toml("x = {" + dotted(40) + " = {" + dotted(40) + " = 1}}", "r"), "nested deeper than 64");
  EXPECT_INPUT_ERROR(parse_toml("x = " + std::string(100000, '['), "r"), "not valid TOML");
  // Dots that are no key's.
  EXPECT_NO_THROW(parse_toml("s = \"" + dotted(1000) + "\" # " + dotted(1000) + "\nt = '" + dotted(1000) + "'", "r"));
  EXPECT_NO_THROW(parse_toml("s = \"\"\"\n" + dotted(1000) + "\\\"\"\"\"\nt = '''\n" + dotted(1000) + "'''", "r"));
}

// Found by fuzzing: what toml++ 3.3 takes for unreachable when it looks for white space.
TEST(ParseToml, OtherThanAsciiOnlyInQuotesAndComments) {
  for (const char* text :
       {"@a.btext = 0x400\n[tra\xcb\x9c=\0emtox\n", "x = 1\nnäme = 1", "x = 1ü", "s = \"\"\"\\ü\"\"\"",
        "x = +\"b\u038b\"", "te'x\u038b' = 1", "p = 6-da.\"x[a\xef\xbb\xb7]\nt = ['C:\\a']"})
    EXPECT_INPUT_ERROR(parse_toml(text, "r"), "not valid TOML");
  const Json json = parse_toml("\xef\xbb\xbf\"näme\" = 'ü' # ü\ns = \"\"\"ü\nü \\\n  u\\\\ü\"\"\"", "r");
  EXPECT_EQ(json["näme"], "ü");
  EXPECT_EQ(json["s"], "ü\nü u\\ü");
}

TEST(LoadToml, NamesTheFile) {
  TemporaryDirectory directory;
  write_file_atomically(directory / "a.toml", "a = ");
  EXPECT_INPUT_ERROR(load_toml(directory / "a.toml"), "a.toml: line 1");
}

TEST(ApplyOverride, ReadsTheValueAsToml) {
  const auto value = [](const std::string& text) {
    Json json = Json::object();
    apply_override(json, "a.b=" + text);
    return json["a"]["b"];
  };
  EXPECT_EQ(value("3e-4"), 3e-4);
  EXPECT_EQ(value("12"), 12);
  EXPECT_EQ(value("true"), true);
  EXPECT_EQ(value("\"12\""), "12");
  EXPECT_EQ(value("[1, 2]"), (Json{1, 2}));
  EXPECT_EQ(value("{c = 1}")["c"], 1);
  EXPECT_EQ(value("path/to/file.txt"), "path/to/file.txt");
  EXPECT_EQ(value("x=y"), "x=y");
  EXPECT_EQ(value(""), "");
  EXPECT_EQ(value("[1, 2"), "[1, 2");
  EXPECT_EQ(value("2026-01-01"), "2026-01-01");
  EXPECT_EQ(value("1\nother = 2"), "1\nother = 2");
}

TEST(ApplyOverride, ReplacesAndCreates) {
  Json json = parse_toml("[train]\nlr = 1\nseed = 2", "r");
  apply_override(json, "train.lr=0.5");
  apply_override(json, " data . text = a.txt ");
  EXPECT_EQ(json.dump(), R"({"train":{"lr":0.5,"seed":2},"data":{"text":"a.txt"}})");
  Json null;
  apply_override(null, "a=1");
  EXPECT_EQ(null["a"], 1);
}

TEST(ApplyOverride, RefusesWhatIsNoAssignment) {
  Json json = parse_toml("a = 1", "r");
  EXPECT_INPUT_ERROR(apply_override(json, "a"), "expected KEY=VALUE");
  EXPECT_INPUT_ERROR(apply_override(json, "=1"), "expected KEY=VALUE");
  EXPECT_INPUT_ERROR(apply_override(json, "a..b=1"), "an empty part");
  EXPECT_INPUT_ERROR(apply_override(json, "a.b=1"), "what comes before '.b' is a value");
  EXPECT_INPUT_ERROR(apply_override(json, "b=\xff"), "not valid UTF-8");
  std::string deep = "b";
  for (int i = 0; i < 100000; ++i) deep += ".b";
  EXPECT_INPUT_ERROR(apply_override(json, deep + "=1"), "a key of more than 64 parts");
}

TEST(Toml, WritesWhatItReads) {
  const Json table = parse_toml(R"(
a = 1
x = 1e-8
big = 3.0e20
on = true
text = "quotes \" \\ and \u007f \n é"
list = [1, "two", [3.5], {four = 4}]
"not bare" = 1
[table]
empty = []
[table.nested."key . two"]
y = -0.5
)",
                                "t");
  EXPECT_EQ(parse_toml(to_toml(table), "again"), table) << to_toml(table);
  EXPECT_EQ(to_toml({{"none", nullptr}, {"t", {{"k", "v"}}}, {"last", 2}}), "last = 2\n\n[t]\nk = \"v\"\n");
}

}  // namespace
}  // namespace oryx
