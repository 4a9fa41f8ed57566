#include "cli/reproduce_plan.h"

#include "base/error.h"
#include "cli/compare_results.h"

namespace oryx::cli {
namespace {

const Json& read_list(Fields& fields, const char* key, const char* example) {
  const Json& list = fields.raw(key);
  require(list.is_array() && !list.empty(), "{}: '{}' must be a list such as {}", fields.where(), key, example);
  return list;
}

}  // namespace

EvaluationPlan EvaluationPlan::read(Fields fields, const std::filesystem::path& folder) {
  EvaluationPlan plan;
  plan.tasks = fields.strings("tasks", plan.tasks);
  plan.retrieval = fields.strings("retrieval", plan.retrieval);
  if (fields.has("recall")) {
    Fields recall = fields.table("recall");
    plan.recall = RecallTask::from_fields(recall);
    recall.finish();
    plan.recall->query_placement = "end";  // so that there is a place that is the question
    plan.recall->validate();
  }
  require(!plan.retrieval.empty() || plan.recall,
          "{}: nothing to retrieve; give retrieval = [\"TASK\"] (oryx eval list) or [evaluation.recall]",
          fields.where());
  plan.places = fields.strings("places", plan.places);
  if (fields.has("fractions")) {
    plan.fractions.clear();
    for (const Json& x : read_list(fields, "fractions", "[0, 0.1, 1]")) {
      require(x.is_number() && x >= 0 && x <= 1, "{}: 'fractions' must lie in [0, 1], but one is {}", fields.where(),
              x.dump());
      plan.fractions.push_back(x);
    }
  }
  if (fields.has("contexts"))
    for (const Json& x : read_list(fields, "contexts", "[256, 1024]")) {
      require(x.is_number_integer() && x > 0, "{}: 'contexts' must be numbers of tokens, but one is {}", fields.where(),
              x.dump());
      plan.contexts.push_back(x);
    }
  if (const std::string data = fields.string("data", ""); !data.empty()) plan.data = folder / data;
  plan.limit = fields.integer("limit", plan.limit);
  require(plan.limit >= 1, "{}: 'limit' must be at least 1 example, but is {}", fields.where(), plan.limit);
  plan.length = fields.integer("length", plan.length);
  require(plan.length >= 0, "{}: 'length' must be a number of tokens, but is {}", fields.where(), plan.length);
  fields.finish();
  return plan;
}

Json EvaluationPlan::to_json() const {
  return {{"tasks", tasks},   {"retrieval", retrieval}, {"recall", recall ? recall->to_json() : Json()},
          {"places", places}, {"fractions", fractions}, {"contexts", contexts},
          {"limit", limit},   {"length", length},       {"data", data.string()}};
}

ReproducePlan ReproducePlan::load(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  const std::string source = path.string();
  auto [json, data_folder] = Comparison::read(path, overrides);
  require(json.contains("evaluation"), "{}: there is no [evaluation] table; a comparison alone is for oryx compare",
          source);
  const Json evaluation = std::move(json["evaluation"]);
  json.erase("evaluation");
  EvaluationPlan plan = EvaluationPlan::read({evaluation, source + ": [evaluation]"}, path.parent_path());
  return {Comparison::from_json(std::move(json), source, data_folder), std::move(plan)};
}

std::vector<std::pair<std::string, std::string>> own_modes(const Json& recipe) {
  if (is_hybrid(recipe)) return {{"schedule", recipe["mixing"]["schedule"].get<std::string>()}};
  std::vector<std::pair<std::string, std::string>> modes;
  for (const Json& mixer : recipe.at("model").at("mixers")) {
    const char* mode = mixer == "attention" ? "attention" : "recurrent";
    modes.emplace_back(mode, mode);
  }
  return modes;
}

}  // namespace oryx::cli
