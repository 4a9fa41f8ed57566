#include "cli/compare_results.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/metrics.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

// What two tables have in common, and what the first has beside that.
Json intersection(const Json& a, const Json& b) {
  Json common = Json::object();
  for (const auto& [key, value] : a.items()) {
    if (!b.contains(key)) continue;
    if (value.is_object() && b[key].is_object())
      common[key] = intersection(value, b[key]);
    else if (value == b[key])
      common[key] = value;
  }
  return common;
}
Json rest(const Json& a, const Json& common) {
  Json out = Json::object();
  for (const auto& [key, value] : a.items()) {
    if (!common.contains(key)) {
      out[key] = value;
    } else if (value.is_object()) {
      Json inner = rest(value, common[key]);
      if (!inner.empty()) out[key] = std::move(inner);
    }
  }
  return out;
}

// MODE: {SEED: nats} from the last evaluations of the runs; a loss that is not finite counts as none.
Json last_losses(const Json& runs) {
  Json losses = Json::object();
  for (const Json& run : runs) {
    const Json& validation = run.at("validation");
    if (validation.empty()) continue;
    for (const auto& [mode, nats] : validation.back().items())
      if (mode != "tokens" && nats.is_number()) losses[mode][run.at("seed").dump()] = nats;
  }
  return losses;
}

// The finished ones among a model's runs, and what comes of them.
Json model_results(const Comparison& comparison, const Comparison::Model& model, const fs::path& out) {
  Json recipe = model.recipes.front().to_json(), runs = Json::array();
  for (const int64_t seed : comparison.seeds) {
    const fs::path run = run_folder(out, model.name, seed);
    if (!fs::exists(run / "model" / "config.json") || !fs::exists(run / kPositionLosses)) continue;
    if (runs.empty()) recipe = load_json(run / "recipe.json");  // with the data's vocabulary
    Json entry{{"seed", seed},
               {"folder", run.lexically_relative(out).string()},
               {"positions", load_json(run / kPositionLosses)}};
    entry.update(read_metrics(run));
    runs.push_back(std::move(entry));
  }
  recipe["train"].erase("seed");
  const ModelInfo info = model_info(ModelConfig::from_json(recipe["model"], model.name));
  Json tie_ratio = Json::object(), speed, val_loss = Json::object();
  if (info.tie_ratio_attention) tie_ratio["attention"] = *info.tie_ratio_attention;
  if (info.tie_ratio_recurrent) tie_ratio["recurrent"] = *info.tie_ratio_recurrent;
  double tokens = 0, seconds = 0;
  for (const Json& run : runs) tokens += run["tokens"].get<double>(), seconds += run["seconds"].get<double>();
  if (seconds > 0) speed = tokens / seconds;
  const Json losses = last_losses(runs);
  // A fixed hybrid has but the schedule that it was trained with.
  const bool hybrid = is_hybrid(recipe);
  for (const auto& [mode, by_seed] : losses.items())
    if (!hybrid || mode == "schedule") val_loss[mode] = spread(by_seed);
  return {{"name", model.name},
          {"mixers", recipe["model"]["mixers"]},
          {"parameters", info.parameters.total - info.parameters.embedding},
          {"tie_ratio", tie_ratio},
          {"passes", passes(model.recipes.front().mixing, model.recipes.front().model)},
          {"recipe", recipe},
          {"tokens_per_s", speed},
          {"val_loss", val_loss},
          {"runs", runs}};
}

// Of a model with two mixers, in each mode, to the first model that has this mixer alone.
Json against_baseline(const Json& model, const Json& models) {
  Json out = Json::object();
  if (model["mixers"].size() < 2) return out;
  for (const auto& [mode, loss] : model["val_loss"].items()) {
    if (mode != "attention" && mode != "recurrent") continue;
    const Json alone = Json::array({model["mixers"][mode == "attention" ? 0 : 1]});
    const auto baseline = std::ranges::find_if(models, [&](const Json& other) { return other["mixers"] == alone; });
    if (baseline == models.end() || !(*baseline)["val_loss"].contains(mode)) continue;
    const Json& base = (*baseline)["val_loss"][mode]["by_seed"];
    const Json differences = seed_differences(loss["by_seed"], base);
    if (differences.empty()) continue;
    out[mode] = spread(differences);
    out[mode]["baseline"] = (*baseline)["name"];
  }
  return out;
}

}  // namespace

Json spread(const Json& by_seed) {
  const auto n = static_cast<double>(by_seed.size());
  double sum = 0, squares = 0;
  for (const auto& [seed, value] : by_seed.items()) sum += value.get<double>();
  for (const auto& [seed, value] : by_seed.items()) squares += std::pow(value.get<double>() - sum / n, 2);
  Json error;
  if (by_seed.size() > 1) error = std::sqrt(squares / (n - 1) / n);
  return {{"mean", sum / n}, {"standard_error", error}, {"by_seed", by_seed}};
}

Json seed_differences(const Json& a, const Json& b) {
  Json out = Json::object();
  for (const auto& [seed, value] : a.items())
    if (b.contains(seed)) out[seed] = value.get<double>() - b[seed].get<double>();
  return out;
}

bool is_hybrid(const Json& recipe) {
  return recipe.at("model").at("mixers").size() > 1 && recipe.at("mixing").at("strategy") == "schedule";
}

fs::path run_folder(const fs::path& out, const std::string& model, int64_t seed) {
  return out / model / fmt::format("seed-{}", seed);
}

Json comparison_results(const Comparison& comparison, const fs::path& out) {
  Json models = Json::array(), common;
  bool finished = true;
  for (const auto& model : comparison.models) {
    models.push_back(model_results(comparison, model, out));
    const Json& results = models.back();
    common = common.is_null() ? results["recipe"] : intersection(common, results["recipe"]);
    finished = finished && results["runs"].size() == comparison.seeds.size();
  }
  for (Json& model : models) {
    model["recipe"] = rest(model["recipe"], common);
    model["against_baseline"] = against_baseline(model, models);
  }
  return {{"common", common}, {"finished", finished}, {"models", models}};
}

}  // namespace oryx::cli
