#include "data/manifest.h"

#include "base/error.h"

namespace oryx {
namespace {

constexpr int64_t kVersion = 1;

// The members of an array of tables, each read by `read` and finished.
template <typename T, typename Read>
std::vector<T> read_list(Fields& fields, const char* key, Read&& read) {
  const Json& list = fields.raw(key);
  require(list.is_array(), "{}: '{}' must be an array", fields.where(), key);
  std::vector<T> out;
  for (const Json& item : list) {
    Fields entry(item, fmt::format("{}: {}", fields.where(), key));
    out.push_back(read(entry));
    entry.finish();
  }
  return out;
}

}  // namespace

int64_t Manifest::inputs_sum(int64_t Input::*count) const {
  int64_t sum = 0;
  for (const Input& input : inputs) sum += input.*count;
  return sum;
}

Json Manifest::to_json(bool with_progress) const {
  Json json = {{"format", "oryx-token-shards"},
               {"version", kVersion},
               {"documents", inputs_sum(&Input::documents)},
               {"tokens", inputs_sum(&Input::tokens)},
               {"text_bytes", inputs_sum(&Input::text_bytes)},
               {"corrupt", inputs_sum(&Input::corrupt)},
               {"empty", inputs_sum(&Input::empty)},
               {"tokenizer",
                {{"file", options.tokenizer_file},
                 {"hash", options.tokenizer_hash},
                 {"vocab_size", options.vocab_size},
                 {"eos_id", options.eos_id}}},
               {"text_key", options.text_key},
               {"shard_tokens", options.shard_tokens},
               {"max_document", options.max_document}};
  Json& in = json["inputs"] = Json::array();
  for (const Input& x : inputs) {
    in.push_back({{"path", x.path},
                  {"format", x.format},
                  {"bytes", x.bytes},
                  {"sha256", x.sha256},
                  {"documents", x.documents},
                  {"tokens", x.tokens},
                  {"text_bytes", x.text_bytes},
                  {"corrupt", x.corrupt},
                  {"empty", x.empty}});
  }
  Json& out = json["shards"] = Json::array();
  for (const Shard& x : shards) {
    out.push_back(
        {{"file", x.file}, {"documents", x.documents}, {"tokens", x.tokens}, {"bytes", x.bytes}, {"sha256", x.sha256}});
  }
  json["problems"] = problems;
  if (with_progress) json["next"] = {{"input", next_input}, {"offset", next.offset}, {"line", next.line}};
  return json;
}

Manifest Manifest::from_json(const Json& json, const std::string& source) {
  Fields fields(json, source);
  Manifest m;
  require(fields.string("format") == "oryx-token-shards" && fields.integer("version") == kVersion,
          "{}: not the manifest of a shard directory of version {}", source, kVersion);
  for (const char* sum : {"documents", "tokens", "text_bytes", "corrupt", "empty"}) fields.integer(sum);
  Fields tokenizer = fields.table("tokenizer");
  m.options.tokenizer_file = tokenizer.string("file");
  m.options.tokenizer_hash = tokenizer.string("hash");
  m.options.vocab_size = tokenizer.integer("vocab_size");
  m.options.eos_id = tokenizer.integer("eos_id");
  tokenizer.finish();
  m.options.text_key = fields.string("text_key");
  m.options.shard_tokens = fields.integer("shard_tokens");
  m.options.max_document = fields.integer("max_document");
  m.inputs = read_list<Input>(fields, "inputs", [](Fields& f) {
    return Input{f.string("path"),        f.string("format"),     f.integer("bytes"),
                 f.string("sha256"),      f.integer("documents"), f.integer("tokens"),
                 f.integer("text_bytes"), f.integer("corrupt"),   f.integer("empty")};
  });
  m.shards = read_list<Shard>(fields, "shards", [](Fields& f) {
    return Shard{f.string("file"), f.integer("documents"), f.integer("tokens"), f.integer("bytes"), f.string("sha256")};
  });
  m.problems = fields.strings("problems");
  if (fields.has("next")) {
    Fields next = fields.table("next");
    m.next_input = static_cast<size_t>(next.integer("input"));
    m.next = {next.integer("offset"), next.integer("line")};
    next.finish();
    require(m.next_input <= m.inputs.size() && m.next.line >= 1, "{}: 'next' is out of range", source);
  }
  fields.finish();
  return m;
}

}  // namespace oryx
