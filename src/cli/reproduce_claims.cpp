#include "cli/reproduce_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "cli/compare_results.h"
#include "cli/verdict.h"

namespace oryx::cli {
namespace {

constexpr double kTieRatio = 0.9;           // of the abstract
constexpr double kFewTokens = 0.1;          // in attention: "fewer than 10%"
constexpr double kLossMargin = 0.02;        // nats: 2% of the perplexity
constexpr double kAccuracyMargin = 0.02;    // of all questions
constexpr double kLearned = 0.5;            // accuracy from which the Transformer has learned to retrieve
constexpr double kTokensPerParameter = 20;  // from which models count as trained long enough to contradict a claim

struct Claim {
  const char* id;
  const char* claim;
  std::string rule;
  std::vector<Verdict> verdicts;
  Json evidence = Json::array();

  void add(Verdict verdict, const std::string& text) {
    verdicts.push_back(verdict);
    evidence.push_back(fmt::format("{}: {}", text, verdict_name(verdict)));
  }
  Json to_json() const {
    return {{"id", id},
            {"claim", claim},
            {"rule", rule},
            {"verdict", verdict_name(all_of(verdicts))},
            {"evidence", evidence}};
  }
};

// Gains to be judged together: their variance is pooled.
struct Gain {
  std::string text;
  Json by_seed;
  std::optional<std::string> unless = {};  // why it shows nothing, whatever the figures
};

void judge(Claim& claim, std::vector<Gain> gains, double margin, bool decisive) {
  // A loss that was not finite is missing.
  std::erase_if(gains, [](const Gain& gain) { return gain.by_seed.empty(); });
  std::vector<Json> all;
  all.reserve(gains.size());
  for (const Gain& gain : gains) all.push_back(gain.by_seed);
  const auto intervals = pooled_intervals(all);
  for (size_t i = 0; i < gains.size(); ++i) {
    const Interval& x = intervals[i];
    const std::string range =
        std::isfinite(x.low) ? fmt::format("{:+.4f} to {:+.4f}", x.low, x.high) : "one seed, no interval";
    const std::string text = fmt::format("{} {:+.4f} ({})", gains[i].text, x.mean, range);
    if (gains[i].unless)
      claim.add(Verdict::not_shown, text + "; " + *gains[i].unless);
    else
      claim.add(judge_gain(x, margin, decisive), text);
  }
}

bool changes_mixers(const Json& model) {
  return model.at("mixers").size() > 1 && !model.at("val_loss").contains("schedule");
}

Json negated(Json by_seed) {
  for (auto& [seed, value] : by_seed.items()) value = -value.get<double>();
  return by_seed;
}

Claim shared_parameters(const Json& models) {
  Claim claim{"parameters",
              "Attention and recurrence share at least 90% of the parameters.",
              "Shown when of each mode's parameters, embeddings left out, at least 0.90 serve the other too; "
              "contradicted otherwise.",
              {}};
  for (const Json& model : models) {
    if (!changes_mixers(model)) continue;
    double ratio = 1;
    for (const auto& [mode, value] : model.at("tie_ratio").items()) ratio = std::min(ratio, value.get<double>());
    claim.add(ratio >= kTieRatio ? Verdict::shown : Verdict::contradicted,
              fmt::format("{} {:.3f}", model.at("name").get<std::string>(), ratio));
  }
  return claim;
}

Claim switching(const Json& models, bool decisive) {
  Claim claim{
      "switching",
      "One model changes between attention and recurrence at any token, keys, values and state side by side.",
      fmt::format("Of the validation loss where the mixers take turns (chunks of a sixteenth of the context) or "
                  "attention has the last tenth: how far it is below the worse of the pure modes. Shown when the "
                  "interval is above {:+.2f} nats.",
                  -kLossMargin),
      {}};
  std::vector<Gain> gains;
  for (const Json& model : models) {
    if (!changes_mixers(model)) continue;
    const Json& losses = model.at("val_loss");
    for (const char* mode : {"mixed", "tail"}) {
      if (!losses.contains(mode) || !losses.contains("attention") || !losses.contains("recurrent")) continue;
      Json gain = Json::object();
      for (const auto& [seed, loss] : losses[mode]["by_seed"].items()) {
        const Json &attention = losses["attention"]["by_seed"], &recurrent = losses["recurrent"]["by_seed"];
        if (!attention.contains(seed) || !recurrent.contains(seed)) continue;
        gain[seed] = std::max(attention[seed].get<double>(), recurrent[seed].get<double>()) - loss.get<double>();
      }
      gains.push_back({fmt::format("{}, {}", model.at("name").get<std::string>(), mode), std::move(gain)});
    }
  }
  judge(claim, gains, kLossMargin, decisive);
  return claim;
}

Claim language_modelling(const Json& rows, bool decisive) {
  Claim claim{"language_modelling",
              "Trained under the same budget, each mode matches or beats the model that has this mixer alone.",
              fmt::format("Of the validation loss: the baseline's less the mode's, seed by seed. Shown when the "
                          "interval is above {:+.2f} nats.",
                          -kLossMargin),
              {}};
  std::vector<Gain> gains;
  for (const Json& row : rows) {
    if (!row.contains("against_baseline")) continue;
    const Json& difference = row["against_baseline"];
    const bool both = row.at("passes") == 2;
    gains.push_back(
        {fmt::format("{}, {}{}, ahead of {} by", row.at("model").get<std::string>(), row.at("mode").get<std::string>(),
                     both ? " (trained on each token in both modes)" : "",
                     difference.at("baseline").get<std::string>()),
         negated(difference.at("val_loss").at("by_seed"))});
  }
  judge(claim, gains, kLossMargin, decisive);
  return claim;
}

Claim retrieval(const Json& models, const Json& rows, bool decisive) {
  Claim claim{
      "retrieval",
      "On retrieval it matches the Transformer with fewer than 10% of the tokens in attention.",
      fmt::format(
          "Of the accuracy averaged over the retrieval tasks: that of the best place of attention with fewer than "
          "10% of the tokens (oracles left out), less the Transformer's, seed by seed. Shown when the interval is "
          "above {:+.2f} and the "
          "Transformer itself answers at least half.",
          -kAccuracyMargin),
      {}};
  const auto transformer =
      std::ranges::find(models, Json::array({"attention"}), [](const Json& m) { return m.at("mixers"); });
  const auto line = std::ranges::find_if(rows, [&](const Json& row) {
    return transformer != models.end() && row.at("model") == transformer->at("name") && row.at("where") == "all";
  });
  if (line == rows.end()) return claim;
  const auto mean = [](const Json& row) { return row.at("accuracy").at("mean").get<double>(); };
  std::vector<Gain> gains;
  for (const Json& model : models) {
    if (!changes_mixers(model)) continue;
    const Json* best = nullptr;
    double none = 0;
    for (const Json& row : rows) {
      if (row.at("model") != model.at("name")) continue;
      if (row.at("where") == "all" && row.at("mode") == "recurrent") none = mean(row);
      const bool oracle = row["where"].get<std::string>().starts_with("oracle");
      if (oracle || row.at("attention_fraction") >= kFewTokens) continue;
      if (best == nullptr || mean(row) > mean(*best)) best = &row;
    }
    if (best == nullptr) continue;
    Gain gain{
        fmt::format("{}: {:.3f} with {:.1f}% of the tokens ({}), {:.3f} with none; the Transformer {:.3f}; ahead by",
                    model["name"].get<std::string>(), mean(*best), 100 * best->at("attention_fraction").get<double>(),
                    best->at("where") == "all" ? "none" : best->at("where").get<std::string>(), none, mean(*line)),
        seed_differences(best->at("accuracy").at("by_seed"), line->at("accuracy").at("by_seed"))};
    if (mean(*line) < kLearned) gain.unless = "the Transformer has not learned to retrieve";
    gains.push_back(std::move(gain));
  }
  judge(claim, gains, kAccuracyMargin, decisive);
  return claim;
}

}  // namespace

Json judge_claims(const Json& models, const Json& results) {
  const bool decisive = results.at("tokens_per_parameter") >= kTokensPerParameter;
  Json claims = Json::array();
  for (const Claim& claim : {shared_parameters(models), switching(models, decisive),
                             language_modelling(results.at("language_modelling"), decisive),
                             retrieval(models, results.at("retrieval"), decisive)})
    claims.push_back(claim.to_json());
  return claims;
}

}  // namespace oryx::cli
