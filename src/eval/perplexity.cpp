#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/progress.h"
#include "data/text_file.h"
#include "eval/scoring.h"

namespace oryx {

Json PerplexityResult::to_json() const {
  return {{"nats_per_token", nats_per_token},
          {"perplexity", perplexity},
          {"bits_per_byte", bits_per_byte},
          {"tokens", tokens},
          {"attention_fraction", attention_fraction}};
}

PerplexityResult evaluate_perplexity(const LanguageModel& model, const Tokenizer& tokenizer, std::string_view text,
                                     const Policy& policy, int64_t context) {
  require(context >= 1, "the context must be at least 1 token, but is {}", context);
  // A window of `context` inputs and the token after them, which is scored and not read.
  std::vector<ScoringRequest> windows;
  int64_t total = 0;
  for (const std::string_view document : split_documents(text)) {
    auto ids = tokenizer.encode(document);
    ids.push_back(tokenizer.eos_id());
    const auto n = static_cast<int64_t>(ids.size());
    for (int64_t begin = 0; begin + 1 < n; begin += context) {
      const int64_t end = std::min(begin + context + 1, n);
      windows.push_back({{ids.begin() + begin, ids.begin() + end}, {}});
      total += end - begin - 1;
    }
  }
  require(total > 0, "the text holds no document of at least one token");
  Progress progress("perplexity, " + policy.text(), total);
  double nats = 0, bytes = 0, attention = 0;
  int64_t tokens = 0;
  constexpr size_t kGroup = 16;
  for (size_t i = 0; i < windows.size(); i += kGroup) {
    std::vector<ScoringRequest> group(windows.begin() + static_cast<int64_t>(i),
                                      windows.begin() + static_cast<int64_t>(std::min(i + kGroup, windows.size())));
    std::vector<RoutingRequest> requests;
    requests.reserve(group.size());
    for (const auto& window : group)
      requests.push_back(
          {{window.tokens.begin(), window.tokens.end() - 1}, 0, {window.tokens.begin() + 1, window.tokens.end()}});
    auto schedules = policy.route(model, requests);
    for (size_t j = 0; j < group.size(); ++j) group[j].schedule = std::move(schedules[j]);
    const auto results = score_sequences(model, group);
    for (size_t j = 0; j < group.size(); ++j) {
      for (double p : results[j].logprobs) nats -= p;
      for (size_t t = 1; t < group[j].tokens.size(); ++t)
        bytes += static_cast<double>(tokenizer.decode(static_cast<int32_t>(group[j].tokens[t])).size());
      const auto read = static_cast<int64_t>(group[j].tokens.size()) - 1;
      tokens += read;
      attention += group[j].schedule.attention_fraction(model.config().num_hidden_layers) * static_cast<double>(read);
    }
    progress.update(tokens);
  }
  progress.finish();
  const double per_token = nats / static_cast<double>(tokens);
  return {per_token, std::exp(per_token), nats / std::numbers::ln2 / std::max(bytes, 1.0), tokens,
          attention / static_cast<double>(tokens)};
}

}  // namespace oryx
