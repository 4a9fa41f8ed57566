#include "eval/routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace oryx {
namespace {

constexpr int64_t kRandomChunk = 16;

class ScheduleRouting : public Routing {
 public:
  ScheduleRouting(const std::string& text, const ModelConfig& config)
      : spec_(ScheduleSpec::parse(text)), config_(config) {
    try {
      (void)spec_.resolve_open(1, config);
      open_ = true;
    } catch (const InputError&) {  // counts from the end; what else may be wrong shows when it is bound
    }
  }

  std::vector<MixerSchedule> route(const LanguageModel&, const std::vector<RoutedSequence>& sequences) const override {
    std::vector<MixerSchedule> out;
    out.reserve(sequences.size());
    for (const RoutedSequence& s : sequences) {
      const auto length = static_cast<int64_t>(s.tokens.size());
      out.push_back(open_ ? spec_.resolve_open(length + s.generated, config_)
                          : extended(spec_.resolve(length, config_), s.generated));
    }
    return out;
  }
  std::string text() const override { return spec_.text(); }

 private:
  ScheduleSpec spec_;
  ModelConfig config_;
  bool open_ = false;
};

class PlacementRouting : public Routing {
 public:
  explicit PlacementRouting(Placement placement) : placement_(std::move(placement)) {}

  std::vector<MixerSchedule> route(const LanguageModel&, const std::vector<RoutedSequence>& sequences) const override {
    std::vector<MixerSchedule> out;
    out.reserve(sequences.size());
    for (const RoutedSequence& s : sequences)
      out.push_back(
          extended(place_attention(placement_, static_cast<int64_t>(s.tokens.size()), s.question_begin), s.generated));
    return out;
  }
  std::string text() const override {
    return placement_.where == "question" ? "question" : fmt::format("{}:{}", placement_.where, placement_.fraction);
  }

 private:
  Placement placement_;
};

class PolicyRouting : public Routing {
 public:
  explicit PolicyRouting(std::unique_ptr<Policy> policy) : policy_(std::move(policy)) {}

  std::vector<MixerSchedule> route(const LanguageModel& model,
                                   const std::vector<RoutedSequence>& sequences) const override {
    std::vector<RoutingRequest> requests;
    requests.reserve(sequences.size());
    for (const RoutedSequence& s : sequences)
      requests.push_back(
          {s.tokens, s.given, {}, s.generated > 0 ? static_cast<int64_t>(s.tokens.size()) - 1 : 0, s.generated});
    return policy_->route(model, requests);
  }
  std::string text() const override { return policy_->text(); }

 private:
  std::unique_ptr<Policy> policy_;
};

// Like ceil, but a product such as 0.07 * 100 = 7.000000000000001 means 7.
int64_t tokens_of(double fraction, int64_t length) {
  const auto exact = fraction * static_cast<double>(length), nearest = std::round(exact);
  return static_cast<int64_t>(std::abs(exact - nearest) <= 1e-9 * std::max(1.0, exact) ? nearest : std::ceil(exact));
}

MixerSchedule from_flags(const std::vector<bool>& attends) {
  std::vector<Span> spans;
  for (int64_t t = 0; t < static_cast<int64_t>(attends.size()); ++t)
    spans.push_back({t, t + 1, attends[t] ? Mode::attention : Mode::recurrent});
  return MixerSchedule::from_spans(std::move(spans), static_cast<int64_t>(attends.size()));
}

}  // namespace

MixerSchedule extended(const MixerSchedule& schedule, int64_t more) {
  const int64_t length = schedule.length();
  if (more == 0 || length == 0) return schedule;
  const auto longer = [&](std::vector<Span> spans) {
    spans.back().end += more;
    return MixerSchedule::from_spans(std::move(spans), length + more);
  };
  MixerSchedule out = longer(schedule.common());
  for (const auto& [layer, spans] : schedule.layers()) out = std::move(out).with_layer(layer, longer(spans));
  return out;
}

MixerSchedule place_attention(const Placement& placement, int64_t length, int64_t question_begin) {
  const int64_t count = tokens_of(placement.fraction, length);
  const auto from = [&](int64_t begin, Mode first, Mode then) {
    return MixerSchedule::from_spans({{0, begin, first}, {begin, length, then}}, length);
  };
  if (placement.where == "tail") return from(length - count, Mode::recurrent, Mode::attention);
  if (placement.where == "head") return from(count, Mode::attention, Mode::recurrent);
  if (placement.where == "question") return from(question_begin, Mode::recurrent, Mode::attention);
  std::vector<bool> attends(length, false);
  if (placement.where == "every") {
    for (int64_t t = 0; t < length; ++t) attends[t] = (t + 1) * count / length > t * count / length;
    return from_flags(attends);
  }
  std::vector<int64_t> chunks((length + kRandomChunk - 1) / kRandomChunk);
  std::iota(chunks.begin(), chunks.end(), 0);
  Random random{placement.seed, static_cast<uint64_t>(length)};
  for (size_t i = chunks.size(); i > 1; --i) std::swap(chunks[i - 1], chunks[random.below(i)]);
  int64_t left = count;
  for (const int64_t chunk : chunks)
    for (int64_t t = chunk * kRandomChunk; t < std::min(length, (chunk + 1) * kRandomChunk) && left > 0; ++t, --left)
      attends[t] = true;
  return from_flags(attends);
}

std::unique_ptr<Routing> make_routing(const std::string& text, const ModelConfig& config) {
  if (text == "question") return make_routing(Placement{"question"});
  return std::make_unique<ScheduleRouting>(text, config);
}

std::unique_ptr<Routing> make_routing(const Placement& placement) {
  const std::vector<std::string> known(std::begin(kPlacements), std::end(kPlacements));
  require(std::ranges::find(known, placement.where) != known.end(),
          "'{}' is no place for attention{}; it must be tail, head, question, random or every", placement.where,
          did_you_mean(placement.where, known));
  require(placement.fraction >= 0 && placement.fraction <= 1, "the fraction {} must be from 0 to 1",
          placement.fraction);
  return std::make_unique<PlacementRouting>(placement);
}

std::unique_ptr<Routing> make_routing(std::unique_ptr<Policy> policy) {
  return std::make_unique<PolicyRouting>(std::move(policy));
}

bool is_policy(std::string_view where) {
  return std::ranges::find(kPolicies, where.substr(0, where.find(':'))) != std::end(kPolicies);
}

std::unique_ptr<Routing> make_routing(const Placement& placement, const std::filesystem::path& directory,
                                      const LanguageModel& model) {
  if (!is_policy(placement.where)) return make_routing(placement);
  const std::string& where = placement.where;
  const size_t name = std::min(where.find(':'), where.size());
  return make_routing(make_policy(fmt::format("{}:{}{}", where.substr(0, name), placement.fraction, where.substr(name)),
                                  directory, model));
}

}  // namespace oryx
