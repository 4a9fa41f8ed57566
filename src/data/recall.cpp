#include "data/recall.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace oryx {
namespace {

constexpr uint64_t kRecallPurpose = 0x6d71617263616c6c;

// n different numbers of [first, first + count), each ordered choice equally likely.
std::vector<int64_t> draw_distinct(Random& random, int64_t first, int64_t count, int64_t n) {
  std::vector<int64_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), first);
  for (int64_t i = 0; i < n; ++i) std::swap(numbers[i], numbers[i + static_cast<int64_t>(random.below(count - i))]);
  numbers.resize(n);
  return numbers;
}

// n different indices, drawn one after another in proportion to the weights of those left: the order of independent
// exponential arrival times with these rates (Efraimidis, Spirakis 2006).
std::vector<int64_t> draw_weighted(Random& random, const std::vector<double>& weights, int64_t n) {
  std::vector<std::pair<double, int64_t>> arrivals;
  arrivals.reserve(weights.size());
  for (size_t i = 0; i < weights.size(); ++i)
    arrivals.emplace_back(-std::log1p(-random.uniform()) / weights[i], static_cast<int64_t>(i));
  std::partial_sort(arrivals.begin(), arrivals.begin() + n, arrivals.end());
  std::vector<int64_t> drawn;
  for (int64_t i = 0; i < n; ++i) drawn.push_back(arrivals[i].second);
  return drawn;
}

}  // namespace

void RecallTask::validate() const {
  require(pairs >= 1, "recall: pairs must be at least 1, not {}", pairs);
  require(vocab >= 4 && vocab <= (1 << 24), "recall: vocab must be 4 to {}, not {}", 1 << 24, vocab);
  require(pairs <= vocab / 2 - 1, "recall: {} pairs need a vocab of at least {}, not {}", pairs, 2 * (pairs + 1),
          vocab);
  require(query_placement == "power" || query_placement == "end",
          "recall: query_placement must be \"power\" or \"end\", not \"{}\"", query_placement);
  require(filler == "any" || filler == "values", "recall: filler must be \"any\" or \"values\", not \"{}\"", filler);
  const int64_t per_pair = query_placement == "power" ? 4 : 3;
  require(length >= per_pair * pairs && length <= (1 << 24),
          "recall: length must be {} (pairs {} with query_placement \"{}\") to {}, not {}", per_pair * pairs, pairs,
          query_placement, 1 << 24, length);
  require(std::isfinite(power_a) && power_a > 0 && power_a <= 10,
          "recall: power_a must be above 0 and at most 10, not {}", power_a);
}

Json RecallTask::to_json() const {
  Json json{{"vocab", vocab},
            {"pairs", pairs},
            {"length", length},
            {"power_a", power_a},
            {"query_placement", query_placement}};
  if (filler != "any") json["filler"] = filler;  // runs that began before there was a choice can be resumed
  return json;
}

RecallTask RecallTask::from_fields(Fields& fields) {
  RecallTask task;
  task.vocab = fields.integer("vocab", task.vocab);
  task.pairs = fields.integer("pairs", task.pairs);
  task.length = fields.integer("length", task.length);
  task.power_a = fields.number("power_a", task.power_a);
  task.query_placement = fields.choice("query_placement", {"power", "end"}, task.query_placement);
  task.filler = fields.choice("filler", {"any", "values"}, task.filler);
  task.validate();
  return task;
}

RecallTask RecallTask::from_json(const Json& json, const std::string& where) {
  Fields fields(json, where);
  RecallTask task = from_fields(fields);
  fields.finish();
  return task;
}

RecallSource::RecallSource(const RecallTask& task, int64_t batch_tokens, uint64_t seed)
    : task_(task), sequences_(0), seed_(seed) {
  task_.validate();
  require(batch_tokens >= task_.length && batch_tokens <= INT32_MAX,
          "batch_tokens must be {} (the length of a recall sequence) to {}, not {}", task_.length, INT32_MAX,
          batch_tokens);
  sequences_ = batch_tokens / task_.length;
  const int64_t places = (task_.length - 2 * task_.pairs) / 2;
  for (int64_t g = 0; g < places; ++g) gap_weights_.push_back(std::pow(static_cast<double>(g + 1), task_.power_a - 1));
}

RecallExample RecallSource::example(int64_t step, int64_t sequence) const {
  require(step >= 0 && sequence >= 0 && sequence < sequences_, "a recall batch has {} sequences, and no number {}/{}",
          sequences_, step, sequence);
  Random random{seed_, kRecallPurpose, static_cast<uint64_t>(step), static_cast<uint64_t>(sequence)};
  const int64_t n = task_.pairs, half = task_.vocab / 2;
  const std::vector<int64_t> keys = draw_distinct(random, 1, half - 1, n);
  const std::vector<int64_t> values = draw_distinct(random, half, task_.vocab - half, n);
  std::vector<int64_t> places;  // of key i's query
  if (task_.query_placement == "power") {
    places = draw_weighted(random, gap_weights_, n);
    for (int64_t& place : places) place = 2 * n + 2 * place;
  } else {
    places = draw_distinct(random, task_.length - n, n, n);
  }

  RecallExample example;
  example.targets.assign(task_.length, kIgnoredTarget);
  example.tokens.resize(task_.length);
  const int64_t first = task_.filler == "values" ? half : 0;
  for (int64_t t = 2 * n; t < task_.length; ++t)
    example.tokens[t] = first + static_cast<int64_t>(random.below(task_.vocab - first));
  for (int64_t i = 0; i < n; ++i) {
    example.tokens[2 * i] = keys[i];
    example.tokens[2 * i + 1] = values[i];
    example.tokens[places[i]] = keys[i];
    example.targets[places[i]] = values[i];
  }
  std::sort(places.begin(), places.end());
  example.queries = std::move(places);
  return example;
}

Batch RecallSource::batch(int64_t step) const {
  Batch batch;
  batch.cu_seqlens.push_back(0);
  for (int64_t i = 0; i < sequences_; ++i) {
    const RecallExample one = example(step, i);
    batch.tokens.insert(batch.tokens.end(), one.tokens.begin(), one.tokens.end());
    batch.targets.insert(batch.targets.end(), one.targets.begin(), one.targets.end());
    batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

}  // namespace oryx
