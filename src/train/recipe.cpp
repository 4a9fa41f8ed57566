#include "train/recipe.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

// The [model] table: a preset's config, or that of the model whose weights are taken, with the other keys laid over it,
// or a config of its own.
ModelConfig read_model(const Json& root, const std::string& source, const fs::path& base, Recipe& recipe) {
  const std::string where = source + ": [model]";
  require(root.contains("model") && root["model"].is_object(),
          "{}: the table [model] is missing; give it a preset or a config", source);
  Json table = root["model"];
  if (table.contains("weights")) {
    require(table["weights"].is_string() && !table.contains("preset"),
            "{}: 'weights' must be a model directory, and takes the place of 'preset'", where);
    recipe.weights = (base / table["weights"].get<std::string>()).lexically_normal().string();
    Json config = load_json(fs::path(recipe.weights) / "config.json");
    table.erase("weights");
    config.update(table);
    recipe.vocab_given = true;
    return ModelConfig::from_json(config, where);
  }
  recipe.vocab_given = table.contains("vocab_size");
  if (!table.contains("preset")) return ModelConfig::from_json(table, where);
  require(table["preset"].is_string(), "{}: 'preset' must be a string", where);
  Json config = preset(table["preset"].get<std::string>()).to_json();
  table.erase("preset");
  for (const auto& [key, value] : table.items()) config[key] = value;
  return ModelConfig::from_json(config, where);
}

std::vector<std::string> read_paths(Fields& fields, const char* key, const fs::path& base) {
  auto paths = fields.strings(key, std::vector<std::string>{});
  for (std::string& path : paths) path = (base / path).lexically_normal().string();
  return paths;
}

int64_t positive(Fields& fields, const char* key, std::optional<int64_t> fallback, int64_t least = 1) {
  const int64_t value = fields.integer(key, fallback);
  require(value >= least, "{}: '{}' must be at least {}, but is {}", fields.where(), key, least, value);
  return value;
}

double in_range(Fields& fields, const char* key, double fallback, double low, double high) {
  const double value = fields.number(key, fallback);
  require(value >= low && value <= high, "{}: '{}' must lie in [{}, {}], but is {}", fields.where(), key, low, high,
          value);
  return value;
}

// A source's keys out of a larger table, which is left for the caller to finish().
void read_source(Fields& fields, const fs::path& base, Recipe::Source& source) {
  if (fields.has("task")) {
    fields.choice("task", {"recall"});
    source.recall = RecallTask::from_fields(fields);
    return;
  }
  source.text = read_paths(fields, "text", base);
  source.shards = read_paths(fields, "shards", base);
  require(source.text.empty() != source.shards.empty(),
          "{}: give one of task = \"recall\", text = [files] or shards = [folders]", fields.where());
}

std::vector<Recipe::WeightedSource> read_sources(Fields& fields, const fs::path& base, int64_t context) {
  const Json& list = fields.raw("sources");
  require(list.is_array() && !list.empty(), "{}: 'sources' must be an array of tables: [[data.sources]]",
          fields.where());
  for (const char* key : {"task", "text", "shards"})
    require(!fields.has(key), "{}: '{}' belongs into one of the [[data.sources]]", fields.where(), key);
  std::vector<Recipe::WeightedSource> sources;
  for (const Json& table : list) {
    Fields entry(table, fmt::format("{} sources {}", fields.where(), sources.size() + 1));
    Recipe::WeightedSource& source = sources.emplace_back();
    source.weight = entry.number("weight", source.weight);
    require(source.weight > 0, "{}: 'weight' must be above 0, but is {}", entry.where(), source.weight);
    const std::string task =
        entry.has("task") ? entry.choice("task", {"recall", "copy", "phone_book", "needle", "random"}) : "";
    if (task.empty() || task == "recall") {
      read_source(entry, base, source);
    } else {
      source.synthetic = SyntheticTask::from_fields(task, entry);
    }
    entry.finish();
    const int64_t length = source.recall      ? source.recall->length
                           : source.synthetic ? source.synthetic->length_in(context)
                                              : context;
    require(context % length == 0, "{}: the context {} must be a multiple of the task's length {}", entry.where(),
            context, length);
  }
  return sources;
}

Recipe::Data read_data(Fields fields, const fs::path& base) {
  Recipe::Data data;
  if (!fields.has("sources")) read_source(fields, base, data);
  if (data.recall) {
    data.context = data.recall->length;
    data.vocab = data.recall->vocab;
  } else {
    data.valid = read_paths(fields, "valid", base);
    data.tokenizer = fields.string("tokenizer", "");
    if (!data.tokenizer.empty()) data.tokenizer = (base / data.tokenizer).lexically_normal().string();
    data.vocab = positive(fields, "vocab", data.vocab, 512);
    data.context = positive(fields, "context", data.context, 2);
    if (fields.has("sources")) data.sources = read_sources(fields, base, data.context);
  }
  fields.finish();
  return data;
}

Json source_json(const Recipe::Source& source) {
  if (!source.recall) return {{"text", source.text}, {"shards", source.shards}};
  Json json = source.recall->to_json();
  json["task"] = "recall";
  return json;
}

Recipe::Train read_train(Fields fields) {
  Recipe::Train t;
  t.tokens = positive(fields, "tokens", std::nullopt);
  t.batch_tokens = positive(fields, "batch_tokens", std::nullopt);
  t.micro_batch_tokens = positive(fields, "micro_batch_tokens", 0, 0);
  t.lr = in_range(fields, "lr", t.lr, 0, 10);
  t.min_lr = in_range(fields, "min_lr", t.min_lr, 0, 1);
  t.schedule = fields.choice("schedule", {"cosine", "wsd", "linear", "constant"}, t.schedule);
  t.warmup = in_range(fields, "warmup", t.warmup, 0, 1e9);
  t.decay = in_range(fields, "decay", t.decay, 0, 1e9);
  t.optimizer = fields.choice("optimizer", {"adamw", "muon"}, t.optimizer);
  t.weight_decay = in_range(fields, "weight_decay", t.weight_decay, 0, 10);
  t.beta1 = in_range(fields, "beta1", t.beta1, 0, 0.999999);
  t.beta2 = in_range(fields, "beta2", t.beta2, 0, 0.999999);
  t.eps = in_range(fields, "eps", t.eps, 1e-30, 1);
  t.momentum = in_range(fields, "momentum", t.momentum, 0, 0.999999);
  t.clip = in_range(fields, "clip", t.clip, 0, 1e9);
  t.seed = positive(fields, "seed", t.seed, 0);
  t.precision = fields.choice("precision", {"fp32", "bf16"}, t.precision);
  t.recompute = fields.boolean("recompute", t.recompute);
  t.log_every = positive(fields, "log_every", t.log_every);
  t.eval_every = positive(fields, "eval_every", t.eval_every, 0);
  t.checkpoint_every = positive(fields, "checkpoint_every", t.checkpoint_every, 0);
  t.eval_tokens = positive(fields, "eval_tokens", t.eval_tokens);
  t.keep = positive(fields, "keep", t.keep);
  t.nonfinite_limit = positive(fields, "nonfinite_limit", t.nonfinite_limit, 0);
  t.outlier_z = in_range(fields, "outlier_z", t.outlier_z, 0, 1e9);
  fields.finish();
  return t;
}

}  // namespace

Recipe Recipe::from_json(const Json& json, const std::string& source, const fs::path& base) {
  Fields root(json, source);
  Recipe recipe;
  recipe.model = read_model(json, source, base, recipe);
  root.table("model");
  recipe.data = read_data(root.table("data"), base);
  recipe.mixing = MixingConfig::read(root.table("mixing"));
  recipe.train = read_train(root.table("train"));
  root.finish();
  if (recipe.data.recall) {
    require(!recipe.vocab_given || recipe.model.vocab_size >= recipe.data.vocab,
            "{}: [model] vocab_size {} is smaller than the task's vocab {}", source, recipe.model.vocab_size,
            recipe.data.vocab);
    if (!recipe.vocab_given) recipe.model.vocab_size = recipe.data.vocab;
  }
  auto& t = recipe.train;
  if (t.micro_batch_tokens == 0) t.micro_batch_tokens = t.batch_tokens;
  require(t.micro_batch_tokens % recipe.data.context == 0,
          "{}: [train] batch_tokens (and micro_batch_tokens) must be a multiple of the context {}, but is {}", source,
          recipe.data.context, t.micro_batch_tokens);
  require(t.batch_tokens % t.micro_batch_tokens == 0,
          "{}: [train] batch_tokens must be a multiple of micro_batch_tokens {}, but is {}", source,
          t.micro_batch_tokens, t.batch_tokens);
  make_mixing(recipe.mixing, recipe.model, recipe.data.context);  // does the strategy suit the model?
  return recipe;
}

Json Recipe::to_json() const {
  Json d = data.sources.empty() ? source_json(data) : Json::object();
  for (const WeightedSource& source : data.sources) {
    Json entry = source.synthetic ? source.synthetic->to_json() : source_json(source);
    entry["weight"] = source.weight;
    d["sources"].push_back(std::move(entry));
  }
  if (!data.recall) {
    d.update({{"valid", data.valid}, {"tokenizer", data.tokenizer}, {"vocab", data.vocab}, {"context", data.context}});
  }
  Json m = model.to_json();
  m["query_activation"] = model.query_activation;
  if (!weights.empty()) m["weights"] = weights;
  const auto& t = train;
  return {{"model", m},
          {"data", d},
          {"mixing", mixing.to_json()},
          {"train",
           {{"tokens", t.tokens},
            {"batch_tokens", t.batch_tokens},
            {"micro_batch_tokens", t.micro_batch_tokens},
            {"lr", t.lr},
            {"min_lr", t.min_lr},
            {"schedule", t.schedule},
            {"warmup", t.warmup},
            {"decay", t.decay},
            {"optimizer", t.optimizer},
            {"weight_decay", t.weight_decay},
            {"beta1", t.beta1},
            {"beta2", t.beta2},
            {"eps", t.eps},
            {"momentum", t.momentum},
            {"clip", t.clip},
            {"seed", t.seed},
            {"precision", t.precision},
            {"recompute", t.recompute},
            {"log_every", t.log_every},
            {"eval_every", t.eval_every},
            {"checkpoint_every", t.checkpoint_every},
            {"eval_tokens", t.eval_tokens},
            {"keep", t.keep},
            {"nonfinite_limit", t.nonfinite_limit},
            {"outlier_z", t.outlier_z}}}};
}

std::optional<Recipe::Difference> Recipe::difference(const Json& written, const std::string& source, const Json& now,
                                                     const std::set<std::string>& ignored) {
  const Json before = from_json(written, source, "").to_json();
  for (const auto& [table, values] : now.items())
    for (const auto& [name, value] : values.items()) {
      const std::string key = fmt::format("{}.{}", table, name);
      const Json earlier = before.value(table, Json::object()).value(name, Json());
      if (ignored.count(key) == 0 && earlier != value) return Difference{key, earlier, value};
    }
  return std::nullopt;
}

double learning_rate(const Recipe::Train& train, int64_t step, int64_t steps) {
  const auto in_steps = [&](double x) { return x < 1 ? std::round(x * static_cast<double>(steps)) : x; };
  const double warmup = in_steps(train.warmup), at = static_cast<double>(step), end = static_cast<double>(steps);
  if (at < warmup) return train.lr * (at + 1) / warmup;
  const auto down = [&](double part) {
    return train.lr * (1 - (1 - train.min_lr) * part);
  };  // part of the way to min_lr
  const double done = (at - warmup) / std::max(1.0, end - warmup);
  if (train.schedule == "cosine") return down(0.5 * (1 - std::cos(std::numbers::pi * done)));
  if (train.schedule == "linear") return down(done);
  if (train.schedule == "wsd") {
    const double decay = in_steps(train.decay);
    return at < end - decay ? train.lr : down((at - (end - decay)) / std::max(1.0, decay));
  }
  return train.lr;
}

}  // namespace oryx
