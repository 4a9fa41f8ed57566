#include "train/comparison.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

// What the tokens, their order and the validation depend on beside [data].
constexpr const char* kCommonKeys[] = {"tokens", "batch_tokens", "micro_batch_tokens",
                                       "seed",   "eval_tokens",  "eval_every"};

std::vector<int64_t> read_seeds(const Json& base, const std::string& source) {
  if (!base.contains("seeds")) {
    const Json train = base.value("train", Json::object());
    return {Fields(train, source + ": [train]").integer("seed", 0)};
  }
  const Json& list = base["seeds"];
  require(list.is_array() && !list.empty(), "{}: 'seeds' must be an array of integers, such as [0, 1, 2]", source);
  std::vector<int64_t> seeds;
  for (const Json& seed : list) {
    require(seed.is_number_integer() && seed >= 0, "{}: 'seeds' must be integers from 0 on, but one is {}", source,
            seed.dump());
    seeds.push_back(seed);
    require(std::ranges::count(seeds, seeds.back()) == 1, "{}: the seed {} stands in 'seeds' twice", source,
            seeds.back());
  }
  return seeds;
}

void check_name(const std::string& name, const std::string& where) {
  const bool plain = std::ranges::all_of(
      name, [](unsigned char c) { return (c < 0x80 && std::isalnum(c) != 0) || c == '-' || c == '_' || c == '.'; });
  require(plain && !name.empty() && name.front() != '.',
          "{}: 'name' is that of a folder: letters, digits, '-', '_' and '.', which it must not begin with, not '{}'",
          where, name);
}

// An entry of [[models]] laid over the recipe that all share; its name.
std::string lay_over(const Json& entry, const std::string& source, Json& recipe) {
  Fields fields(entry, source);
  const std::string preset = fields.string("preset", "");
  const std::string name = fields.string("name", preset);
  require(!name.empty(), "{}: give it a 'name', or a 'preset', which then is its name too", source);
  check_name(name, source);
  const std::string where = fmt::format("{} ('{}')", source, name);
  require(!fields.has("data"),
          "{}: a model has no [data] of its own, or the models would not see the same tokens; [data] is common to all",
          where);
  for (const char* table : {"model", "mixing", "train"}) {
    if (!fields.has(table)) continue;
    require(entry[table].is_object(), "{}: '{}' must be a table", where, table);
    if (table == std::string_view("mixing") && entry[table].contains("strategy"))  // parts of the common one go
      recipe[table].merge_patch({{"phases", nullptr}, {"weights", nullptr}});
    recipe[table].merge_patch(entry[table]);
  }
  for (const char* key : kCommonKeys)
    require(!entry.contains("train") || !entry["train"].contains(key),
            "{}: train.{} must be the same for all models, or they would not see the same tokens in the same order{}; "
            "set it in the common [train]",
            where, key, std::string_view(key).starts_with("eval") ? " in validation" : "");
  if (!preset.empty()) {
    require(!entry.contains("model") || !entry["model"].contains("preset"), "{}: 'preset' and model.preset: give one",
            where);
    recipe["model"]["preset"] = preset;
  }
  fields.finish();
  return name;
}

}  // namespace

std::pair<Json, fs::path> Comparison::read(const fs::path& path, const std::vector<std::string>& overrides) {
  Json base = Json::object(), own = load_toml(path);
  fs::path data_folder = path.parent_path();
  if (own.contains("recipe")) {
    const fs::path recipe = path.parent_path() / Fields(own, path.string()).string("recipe");
    base = load_toml(recipe);
    own.erase("recipe");
    if (own.contains("data"))
      base.erase("data");
    else
      data_folder = recipe.parent_path();
  }
  base.merge_patch(own);
  for (const std::string& assignment : overrides) apply_override(base, assignment);
  return {std::move(base), std::move(data_folder)};
}

Comparison Comparison::load(const fs::path& path, const std::vector<std::string>& overrides) {
  auto [json, data_folder] = read(path, overrides);
  return from_json(std::move(json), path.string(), data_folder);
}

Comparison Comparison::from_json(Json base, const std::string& source, const fs::path& data_folder) {
  for (const char* table : {"model", "mixing", "train"})
    require(!base.contains(table) || base[table].is_object(), "{}: '{}' must be a table", source, table);
  Comparison comparison;
  comparison.seeds = read_seeds(base, source);
  require(base.contains("models") && base["models"].is_array() && !base["models"].empty(),
          "{}: there is nothing to compare; give it models as [[models]] with a 'preset' each", source);
  const Json entries = std::move(base["models"]);
  base.erase("models");
  base.erase("seeds");
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string where = fmt::format("{}: [[models]] {}", source, i + 1);
    Json recipe = base;
    Model model{lay_over(entries[i], where, recipe), {}};
    require(std::ranges::find(comparison.models, model.name, &Model::name) == comparison.models.end(),
            "{}: the name '{}' is taken; give each model a 'name' of its own", where, model.name);
    for (const int64_t seed : comparison.seeds) {
      recipe["train"]["seed"] = seed;
      model.recipes.push_back(Recipe::from_json(recipe, fmt::format("{}: '{}'", source, model.name), data_folder));
    }
    comparison.models.push_back(std::move(model));
  }
  const Recipe::Data& data = comparison.models.front().recipes.front().data;
  require(data.recall || !data.valid.empty(),
          "{}: [data] has nothing to compare the models on; give it valid = [\"FILE\"] of text", source);
  return comparison;
}

}  // namespace oryx
