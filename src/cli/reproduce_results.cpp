#include "cli/reproduce_results.h"

#include <algorithm>
#include <map>
#include <set>

#include "cli/compare_results.h"
#include "cli/reproduce_claims.h"

namespace oryx::cli {
namespace {

// SEED: mean of the accuracies among a mode's results.
double average_accuracy(const Json& tasks, int64_t& count) {
  double sum = 0;
  count = 0;
  for (const auto& [task, result] : tasks.items())
    if (result.contains("acc")) sum += result["acc"].get<double>(), ++count;
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

// The first metric of a task's result comes first.
std::string metric_of(const Json& result) {
  return result.contains("acc") ? "acc" : result.begin().key();
}

Json language_modelling(const Json& models, const Json& evaluations) {
  Json rows = Json::array();
  for (const Json& model : models) {
    const Json& seeds = evaluations.value(model.at("name").get<std::string>(), Json::object());
    std::vector<std::string> modes;
    for (const auto& [seed, evaluation] : seeds.items())
      for (const auto& [mode, tasks] : evaluation.at("modes").items())
        if (std::ranges::find(modes, mode) == modes.end()) modes.push_back(mode);
    if (modes.empty())
      for (const char* mode : {"attention", "recurrent", "schedule"})
        if (model.at("val_loss").contains(mode)) modes.emplace_back(mode);
    for (const std::string& mode : modes) {
      Json row{{"model", model["name"]}, {"mode", mode}, {"passes", model["passes"]}, {"tasks", Json::object()}};
      if (model["val_loss"].contains(mode)) row["val_loss"] = model["val_loss"][mode];
      Json averages = Json::object(), by_task = Json::object();
      for (const auto& [seed, evaluation] : seeds.items()) {
        const Json tasks = evaluation["modes"].value(mode, Json::object());
        int64_t count = 0;
        const double average = average_accuracy(tasks, count);
        if (count > 0) averages[seed] = average;
        for (const auto& [task, result] : tasks.items()) {
          by_task[task]["metric"] = metric_of(result);
          by_task[task]["by_seed"][seed] = result.at(metric_of(result));
        }
      }
      for (const auto& [task, values] : by_task.items()) {
        row["tasks"][task] = spread(values["by_seed"]);
        row["tasks"][task]["metric"] = values["metric"];
      }
      if (!averages.empty()) row["average"] = spread(averages);
      rows.push_back(std::move(row));
    }
  }
  // Differences to the models that have this mode alone.
  for (Json& row : rows) {
    const auto model = std::ranges::find(models, row["model"], [](const Json& m) { return m.at("name"); });
    const Json differences = model->at("against_baseline").value(row["mode"].get<std::string>(), Json());
    if (!differences.is_object()) continue;
    row["against_baseline"] = {{"baseline", differences["baseline"]}, {"val_loss", differences}};
    const auto base = std::ranges::find_if(rows, [&](const Json& other) {
      return other["model"] == differences["baseline"] && other["mode"] == row["mode"];
    });
    if (base == rows.end() || !base->contains("average") || !row.contains("average")) continue;
    const Json by_seed = seed_differences(row["average"]["by_seed"], (*base)["average"]["by_seed"]);
    if (!by_seed.empty()) row["against_baseline"]["average"] = spread(by_seed);
  }
  return rows;
}

// Accuracies averaged over the tasks, seed by seed.
Json retrieval(const Json& models, const Json& evaluations) {
  Json rows = Json::array();
  for (const Json& model : models) {
    struct Point {
      Json key, accuracy = Json::object(), tasks = Json::object();
      double attention = 0;
      int64_t count = 0;
    };
    std::map<std::string, Point> points;
    std::vector<std::string> order;
    const Json& seeds = evaluations.value(model.at("name").get<std::string>(), Json::object());
    for (const auto& [seed, evaluation] : seeds.items()) {
      std::set<std::string> tasks;
      for (const Json& p : evaluation.at("retrieval")) tasks.insert(p.at("task").get<std::string>());
      for (const Json& p : evaluation["retrieval"]) {
        const Json key{{"where", p.at("where")}, {"mode", p.at("mode")}, {"fraction", p.at("fraction")}};
        Point& point = points[key.dump()];
        if (point.key.is_null()) point.key = key, order.push_back(key.dump());
        const auto accuracy = p.at("accuracy").get<double>();
        Json& sum = point.accuracy[seed];
        sum = (sum.is_null() ? 0.0 : sum.get<double>()) + accuracy / static_cast<double>(tasks.size());
        Json& task = point.tasks[p["task"].get<std::string>()];
        task = (task.is_null() ? 0.0 : task.get<double>()) + accuracy / static_cast<double>(seeds.size());
        point.attention += p.at("attention_fraction").get<double>();
        ++point.count;
      }
    }
    for (const std::string& key : order) {
      const Point& point = points[key];
      Json row{{"model", model["name"]}};
      row.update(point.key);
      row.update({{"attention_fraction", point.attention / static_cast<double>(point.count)},
                  {"accuracy", spread(point.accuracy)},
                  {"tasks", point.tasks}});
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

Json contexts(const Json& models, const Json& evaluations) {
  Json rows = Json::array();
  for (const Json& model : models) {
    const Json& seeds = evaluations.value(model.at("name").get<std::string>(), Json::object());
    for (const auto& [seed, evaluation] : seeds.items())
      for (const Json& row : evaluation.value("contexts", Json::array())) {
        rows.push_back({{"model", model["name"]}});
        rows.back().update(row);
      }
  }
  return rows;
}

}  // namespace

Json reproduction_results(const Json& comparison, const Json& evaluations) {
  const Json& models = comparison.at("models");
  double parameters = 0;
  for (const Json& model : models) parameters = std::max(parameters, model.at("parameters").get<double>());
  Json results{{"tokens_per_parameter", comparison.at("tokens").get<double>() / parameters},
               {"language_modelling", language_modelling(models, evaluations)},
               {"retrieval", retrieval(models, evaluations)},
               {"contexts", contexts(models, evaluations)}};
  results["claims"] = judge_claims(models, results);
  return results;
}

}  // namespace oryx::cli
