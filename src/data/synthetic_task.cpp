#include <algorithm>

#include "base/error.h"
#include "data/synthetic.h"

namespace oryx {

SyntheticTask SyntheticTask::from_fields(const std::string& kind, Fields& fields) {
  SyntheticTask task;
  task.kind = kind;
  const auto at_least = [&](const char* key, int64_t fallback, int64_t least) {
    const int64_t value = fields.integer(key, fallback);
    require(value >= least && value <= (1 << 24), "{}: '{}' must be {} to {}, but is {}", fields.where(), key, least,
            1 << 24, value);
    return value;
  };
  if (!task.is_text()) {
    task.vocab = at_least("vocab", task.vocab, 2);
    task.length = at_least("length", 128, 3);
    return task;
  }
  if (fields.has("length")) task.length = at_least("length", 0, 1);
  task.queries = at_least("queries", task.queries, 1);
  if (kind == "needle") {
    task.needles = at_least("needles", std::max(task.needles, task.queries), 1);
    require(task.queries <= task.needles, "{}: 'queries' must be at most the number of needles {}, but is {}",
            fields.where(), task.needles, task.queries);
  }
  return task;
}

Json SyntheticTask::to_json() const {
  if (!is_text()) return {{"task", kind}, {"vocab", vocab}, {"length", length}};
  Json json{{"task", kind}, {"queries", queries}};
  if (length > 0) json["length"] = length;
  if (kind == "needle") json["needles"] = needles;
  return json;
}

}  // namespace oryx
