#include "generate/policy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <charconv>

#include "base/error.h"
#include "data/batch.h"
#include "generate/gate.h"
#include "generate/repeats.h"
#include "generate/routing.h"
#include "generate/token_score.h"

namespace oryx {
namespace {

constexpr int64_t kBatchTokens = 8192;
constexpr int64_t kMaxChunk = int64_t{1} << 20;

std::vector<double> doubles(const at::Tensor& x) {
  const at::Tensor y = at::nan_to_num(x.to(at::kCPU, at::kDouble)).contiguous();  // NaN has no place in an order
  return {y.const_data_ptr<double>(), y.const_data_ptr<double>() + y.numel()};
}

class SchedulePolicy : public Policy {
 public:
  explicit SchedulePolicy(ScheduleSpec spec) : spec_(std::move(spec)) {}
  std::vector<MixerSchedule> route(const LanguageModel& model,
                                   const std::vector<RoutingRequest>& requests) const override {
    std::vector<MixerSchedule> schedules;
    schedules.reserve(requests.size());
    for (const auto& request : requests)
      schedules.push_back(
          spec_.resolve(static_cast<int64_t>(request.tokens.size()) + request.generated, model.config()));
    return schedules;
  }
  std::unique_ptr<SequenceRouter> start(const LanguageModel& model, int64_t length) const override {
    return std::make_unique<ScheduleRouter>(spec_.resolve_open(length, model.config()));
  }
  const std::string& text() const override { return spec_.text(); }

 private:
  ScheduleSpec spec_;
};

class ScoreRouter : public SequenceRouter {
 public:
  ScoreRouter(const LanguageModel& model, const TokenScore& score, RoutingBudget budget)
      : model_(model),
        score_(score),
        budget_(budget),
        router_(budget),
        scout_(model.make_cache(Cache::Options{.keep_inputs = false})) {
    scout_.drop_kv();
  }

  MixerSchedule read(const std::vector<int64_t>& tokens) override {
    c10::NoGradGuard no_grad;
    const auto n = static_cast<int64_t>(tokens.size());
    const bool first = scout_.length() == 0;
    const SequenceLayout layout({{MixerSchedule::uniform(Mode::recurrent, n), scout_.length()}},
                                model_.config().num_hidden_layers, model_.device());
    Cache* cache = &scout_;
    std::vector<float> repeats;
    if (score_.sees_repeats()) repeats_.read(tokens, repeats);
    const auto scores = doubles(score_(model_, {model_.hidden(at::tensor(tokens), layout, {&cache, 1}), repeats}));
    std::vector<Span> spans;
    if (first) {
      router_.save({scores.data(), scores.size() - 1});
      if (n > 1) spans.push_back({0, n - 1, Mode::recurrent});
      spans.push_back({n - 1, n, router_.next(scores.back())});
    } else {
      for (int64_t t = 0; t < n; ++t) spans.push_back({t, t + 1, router_.next(scores[t])});
    }
    return MixerSchedule::from_spans(std::move(spans), n);
  }

 private:
  const LanguageModel& model_;
  const TokenScore& score_;
  RoutingBudget budget_;
  CausalRouter router_;
  Cache scout_;  // of the sequence read by the recurrence alone
  Repeats repeats_;
};

class BudgetPolicy : public Policy {
 public:
  BudgetPolicy(std::string text, RoutingBudget budget) : budget_(budget), text_(std::move(text)) {}

  std::vector<MixerSchedule> route(const LanguageModel& model,
                                   const std::vector<RoutingRequest>& requests) const override {
    c10::NoGradGuard no_grad;
    std::vector<MixerSchedule> schedules;
    for (size_t begin = 0; begin < requests.size();) {
      size_t end = begin;
      for (int64_t count = 0; end < requests.size() && (end == begin || count < kBatchTokens); ++end)
        count += static_cast<int64_t>(requests[end].tokens.size());
      route_batch(model, {requests.data() + begin, end - begin}, schedules);
      begin = end;
    }
    return schedules;
  }

  const std::string& text() const override { return text_; }

 protected:
  // Scores [N] of packed requests.
  virtual at::Tensor scores(const LanguageModel& model, std::span<const RoutingRequest> requests) const = 0;
  virtual int64_t given(const RoutingRequest& request) const { return request.given; }

  static at::Tensor hidden(const LanguageModel& model, std::span<const RoutingRequest> requests, Mode mode) {
    std::vector<int64_t> tokens;
    std::vector<SequenceSpec> sequences;
    for (const auto& request : requests) {
      tokens.insert(tokens.end(), request.tokens.begin(), request.tokens.end());
      sequences.push_back({MixerSchedule::uniform(mode, static_cast<int64_t>(request.tokens.size()))});
    }
    const SequenceLayout layout(std::move(sequences), model.config().num_hidden_layers, model.device());
    return model.hidden(at::tensor(tokens), layout);
  }

  RoutingBudget budget_;

 private:
  void route_batch(const LanguageModel& model, std::span<const RoutingRequest> requests,
                   std::vector<MixerSchedule>& schedules) const {
    const std::vector<double> all = doubles(scores(model, requests));
    size_t begin = 0;
    for (const auto& request : requests) {
      const auto n = static_cast<int64_t>(request.tokens.size()), known = given(request);
      require(known >= 0 && known <= n, "{} tokens are given of a sequence of {}", known, n);
      const std::span mine(all.data() + begin, request.tokens.size());
      begin += request.tokens.size();
      require(request.unused >= 0 && request.unused <= n, "{} tokens are unused of a sequence of {}", request.unused,
              n);
      CausalRouter router(budget_);
      std::vector<Span> spans;
      int64_t t = known;
      if (request.unused > 0) {
        t = request.unused;
        spans.push_back({0, t, Mode::recurrent});
        router.save(mine.first(t));
      } else {
        spans = route_known(mine.first(known), budget_);
        router.observe(mine.first(known), spans);
      }
      for (; t < n; ++t) spans.push_back({t, t + 1, router.next(mine[t])});
      for (; t < n + request.generated; ++t) spans.push_back({t, t + 1, router.next_unknown()});
      schedules.push_back(MixerSchedule::from_spans(std::move(spans), t));
    }
  }

  std::string text_;
};

class ScorePolicy : public BudgetPolicy {
 public:
  ScorePolicy(std::string text, RoutingBudget budget, std::unique_ptr<TokenScore> score)
      : BudgetPolicy(std::move(text), budget), score_(std::move(score)) {}
  std::unique_ptr<SequenceRouter> start(const LanguageModel& model, int64_t) const override {
    return std::make_unique<ScoreRouter>(model, *score_, budget_);
  }

 private:
  at::Tensor scores(const LanguageModel& model, std::span<const RoutingRequest> requests) const override {
    std::vector<float> repeats;
    if (score_->sees_repeats())
      for (const auto& request : requests) Repeats().read(request.tokens, repeats);
    return (*score_)(model, {hidden(model, requests, Mode::recurrent), repeats});
  }

  std::unique_ptr<TokenScore> score_;
};

class OraclePolicy : public BudgetPolicy {
 public:
  using BudgetPolicy::BudgetPolicy;
  std::unique_ptr<SequenceRouter> start(const LanguageModel&, int64_t) const override {
    input_error("policy '{}': the oracle knows what is to be predicted; generate with entropy, margin or gate", text());
  }

 private:
  at::Tensor scores(const LanguageModel& model, std::span<const RoutingRequest> requests) const override {
    std::vector<int64_t> targets;
    for (const auto& request : requests) {
      if (request.tokens.empty()) continue;
      if (request.targets.empty()) {
        targets.insert(targets.end(), request.tokens.begin() + 1, request.tokens.end());
        targets.push_back(kIgnoredTarget);
      } else {
        require(request.targets.size() == request.tokens.size(), "{} targets for {} tokens", request.targets.size(),
                request.tokens.size());
        targets.insert(targets.end(), request.targets.begin(), request.targets.end());
      }
    }
    const at::Tensor wanted = at::tensor(targets);
    return model.losses(hidden(model, requests, Mode::recurrent), wanted) -
           model.losses(hidden(model, requests, Mode::attention), wanted);
  }
  int64_t given(const RoutingRequest& request) const override { return static_cast<int64_t>(request.tokens.size()); }
};

template <typename Number>
bool parse_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::unique_ptr<Policy> schedule_policy(ScheduleSpec spec) {
  return std::make_unique<SchedulePolicy>(std::move(spec));
}

std::unique_ptr<Policy> make_policy(std::string_view text, const std::filesystem::path& directory,
                                    const LanguageModel& model) {
  std::vector<std::string_view> words;
  for (size_t begin = 0;;) {
    const size_t colon = text.find(':', begin);
    words.push_back(text.substr(begin, colon - begin));
    if (colon == std::string_view::npos) break;
    begin = colon + 1;
  }
  const std::vector<std::string> kinds(std::begin(kPolicies), std::end(kPolicies));
  require(std::find(kinds.begin(), kinds.end(), words[0]) != kinds.end(),
          "policy '{}': '{}' is not a policy{}; use entropy, margin, gate or oracle, as entropy:FRACTION[:CHUNK]", text,
          words[0], did_you_mean(words[0], kinds));
  require(words.size() == 2 || words.size() == 3, "policy '{}' must have the form {}:FRACTION[:CHUNK]", text, words[0]);
  RoutingBudget budget;
  require(parse_number(words[1], budget.fraction) && budget.fraction >= 0 && budget.fraction <= 1,
          "policy '{}': '{}' is not a fraction; it must be a number from 0 to 1", text, words[1]);
  require(words.size() == 2 || (parse_number(words[2], budget.chunk) && budget.chunk >= 1 && budget.chunk <= kMaxChunk),
          "policy '{}': '{}' is not a chunk; it must be a number of tokens from 1 to {}", text, words.back(),
          kMaxChunk);
  require(model.config().has(Mode::attention) && model.config().has(Mode::recurrent),
          "policy '{}' chooses between attention and a recurrence, but the model has only {}", text,
          mixer_name(model.config().mixers[0]));
  std::string name(text);
  if (words[0] == "oracle") return std::make_unique<OraclePolicy>(std::move(name), budget);
  std::unique_ptr<TokenScore> score;
  if (words[0] == "entropy") score = std::make_unique<EntropyScore>();
  if (words[0] == "margin") score = std::make_unique<MarginScore>();
  if (words[0] == "gate") score = std::make_unique<Gate>(Gate::load(directory, model));
  return std::make_unique<ScorePolicy>(std::move(name), budget, std::move(score));
}

}  // namespace oryx
