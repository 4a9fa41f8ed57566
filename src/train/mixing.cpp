#include "train/mixing.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace oryx {
namespace {

const std::vector<std::string> kSimple{"random",      "attention", "recurrent", "alternate",
                                       "switch_once", "tail",      "schedule"};

// Keys of the streams of random numbers, so that they do not depend on each other.
enum Purpose : uint64_t { kProbability = 101, kChunks = 102, kSwitch = 103, kMixture = 104 };

Random stream(uint64_t seed, Purpose purpose, int64_t step, int64_t sequence) {
  return Random{seed, purpose, static_cast<uint64_t>(step), static_cast<uint64_t>(sequence)};
}

class Pure : public MixingStrategy {
 public:
  explicit Pure(Mode mode) : mode_(mode) {}
  MixerSchedule schedule(uint64_t, int64_t, int64_t, int64_t length, double) const override {
    return MixerSchedule::uniform(mode_, length);
  }

 private:
  Mode mode_;
};

class Chunks : public MixingStrategy {
 public:
  explicit Chunks(int64_t chunk) : chunk_(chunk) {}

 protected:
  template <typename Choose>
  MixerSchedule by_chunk(int64_t length, const Choose& choose) const {
    std::vector<Span> spans;
    for (int64_t begin = 0; begin < length; begin += chunk_)
      spans.push_back({begin, std::min(begin + chunk_, length), choose(begin / chunk_)});
    return MixerSchedule::from_spans(std::move(spans), length);
  }
  int64_t chunk_;
};

class RandomChunks : public Chunks {
 public:
  RandomChunks(int64_t chunk, double low, double high) : Chunks(chunk), low_(low), high_(high) {}
  MixerSchedule schedule(uint64_t seed, int64_t step, int64_t sequence, int64_t length, double) const override {
    const double p = low_ + (high_ - low_) * stream(seed, kProbability, step, sequence).uniform();
    Random draw = stream(seed, kChunks, step, sequence);
    return by_chunk(length, [&](int64_t) { return draw.uniform() < p ? Mode::attention : Mode::recurrent; });
  }

 private:
  double low_, high_;
};

class Alternate : public Chunks {
 public:
  using Chunks::Chunks;
  MixerSchedule schedule(uint64_t, int64_t, int64_t, int64_t length, double) const override {
    return by_chunk(length, [](int64_t i) { return i % 2 == 0 ? Mode::recurrent : Mode::attention; });
  }
};

MixerSchedule switch_at(int64_t point, int64_t length) {
  return MixerSchedule::from_spans({{0, point, Mode::recurrent}, {point, length, Mode::attention}}, length);
}

class SwitchOnce : public MixingStrategy {
 public:
  MixerSchedule schedule(uint64_t seed, int64_t step, int64_t sequence, int64_t length, double) const override {
    const auto points = static_cast<uint64_t>(length) + 1;
    return switch_at(static_cast<int64_t>(stream(seed, kSwitch, step, sequence).below(points)), length);
  }
};

class Tail : public MixingStrategy {
 public:
  explicit Tail(double fraction) : fraction_(fraction) {}
  MixerSchedule schedule(uint64_t, int64_t, int64_t, int64_t length, double) const override {
    return switch_at(length - static_cast<int64_t>(std::ceil(fraction_ * static_cast<double>(length))), length);
  }

 private:
  double fraction_;
};

class Fixed : public MixingStrategy {
 public:
  Fixed(const std::string& schedule, ModelConfig model)
      : schedule_(ScheduleSpec::parse(schedule)), model_(std::move(model)) {
    schedule_.resolve(1, model_);  // must suit sequences of any length, and the model
  }
  MixerSchedule schedule(uint64_t, int64_t, int64_t, int64_t length, double) const override {
    return schedule_.resolve(length, model_);
  }

 private:
  ScheduleSpec schedule_;
  ModelConfig model_;
};

class Mixture : public MixingStrategy {
 public:
  Mixture(const MixingConfig& config, const ModelConfig& model, int64_t context) {
    for (const auto& [name, weight] : config.weights) {
      MixingConfig one = config;
      one.strategy = name;
      parts_.push_back(make_mixing(one, model, context));
      total_ += weight;
      upper_.push_back(total_);
    }
  }
  MixerSchedule schedule(uint64_t seed, int64_t step, int64_t sequence, int64_t length,
                         double progress) const override {
    const double x = stream(seed, kMixture, step, sequence).uniform() * total_;
    size_t i = 0;
    while (i + 1 < upper_.size() && x >= upper_[i]) ++i;
    return parts_[i]->schedule(seed, step, sequence, length, progress);
  }

 private:
  std::vector<std::unique_ptr<MixingStrategy>> parts_;
  std::vector<double> upper_;
  double total_ = 0;
};

class Phases : public MixingStrategy {
 public:
  Phases(const MixingConfig& config, const ModelConfig& model, int64_t context) {
    for (const MixingConfig::Phase& phase : config.phases)
      phases_.emplace_back(phase.until, make_mixing(phase.mixing, model, context));
  }
  MixerSchedule schedule(uint64_t seed, int64_t step, int64_t sequence, int64_t length,
                         double progress) const override {
    size_t i = 0;
    while (i + 1 < phases_.size() && progress >= phases_[i].first) ++i;
    return phases_[i].second->schedule(seed, step, sequence, length, progress);
  }

 private:
  std::vector<std::pair<double, std::unique_ptr<MixingStrategy>>> phases_;
};

std::vector<MixingConfig::Phase> read_phases(Fields& fields) {
  std::vector<MixingConfig::Phase> phases;
  double last = 0;
  const Json& list = fields.raw("phases");
  const auto table_like = [](const Json& entry) { return entry.is_object(); };
  require(list.is_array() && std::all_of(list.begin(), list.end(), table_like),
          "{}: 'phases' must be an array of tables: [[mixing.phases]]", fields.where());
  for (const Json& table : list) {
    const std::string where = fmt::format("{} phases {}", fields.where(), phases.size() + 1);
    MixingConfig::Phase& phase = phases.emplace_back();
    Json rest = table;
    rest.erase("until");
    phase.until = Fields(table, where).number("until", 1);
    require(phase.until > last && phase.until <= 1,
            "{}: 'until' must lie above the phase before ({}) and at most at 1, but is {}", where, last, phase.until);
    last = phase.until;
    phase.mixing = MixingConfig::read(Fields(rest, where));
    require(phase.mixing.phases.empty(), "{}: a phase cannot have phases itself", where);
    require(!phase.mixing.both && phase.mixing.key_gradient == 1,
            "{}: 'both' and 'key_gradient' hold for all of the training and belong into [mixing]", where);
  }
  require(last == 1, "{}: the last of the phases must end at until = 1 (the default), but ends at {}", fields.where(),
          last);
  return phases;
}

}  // namespace

MixingConfig MixingConfig::read(Fields fields) {
  MixingConfig config;
  auto names = kSimple;
  names.insert(names.end(), {"mixture", "phases"});
  config.strategy = fields.choice("strategy", names, config.strategy);
  config.chunk = fields.integer("chunk", 0);
  require(config.chunk >= 0, "{}: 'chunk' must be at least 1 token (or 0 for the default), but is {}", fields.where(),
          config.chunk);
  config.low = fields.number("low", config.low);
  config.high = fields.number("high", config.high);
  require(0 <= config.low && config.low <= config.high && config.high <= 1,
          "{}: 'low' and 'high' must satisfy 0 <= low <= high <= 1, but are {} and {}", fields.where(), config.low,
          config.high);
  config.fraction = fields.number("fraction", config.fraction);
  require(config.fraction >= 0 && config.fraction <= 1, "{}: 'fraction' must lie in [0, 1], but is {}", fields.where(),
          config.fraction);
  config.schedule = fields.string("schedule", "");
  config.both = fields.boolean("both", false);
  require(!config.both || config.strategy != "schedule",
          "{}: 'both' would train the hybrid of a schedule with its mixers exchanged as well; set both = false",
          fields.where());
  config.key_gradient = fields.number("key_gradient", config.key_gradient);
  require(config.key_gradient >= 0 && config.key_gradient <= 1, "{}: 'key_gradient' must lie in [0, 1], but is {}",
          fields.where(), config.key_gradient);
  Fields weights = fields.table("weights");
  for (const std::string& name : kSimple)
    if (weights.has(name)) {
      config.weights.emplace_back(name, weights.number(name));
      require(config.weights.back().second > 0, "{}: the weight of '{}' must be above 0", weights.where(), name);
    }
  weights.finish();
  require((config.strategy == "mixture") == !config.weights.empty(),
          "{}: 'weights' (strategy = weight) goes with strategy = \"mixture\", and the other way round",
          fields.where());
  require((config.strategy == "phases") == fields.has("phases"),
          "{}: [[mixing.phases]] goes with strategy = \"phases\", and the other way round", fields.where());
  if (fields.has("phases")) config.phases = read_phases(fields);
  const bool takes_schedule =
      config.strategy == "schedule" ||
      std::any_of(config.weights.begin(), config.weights.end(), [](const auto& w) { return w.first == "schedule"; });
  require(takes_schedule == !config.schedule.empty(),
          "{}: 'schedule' (as *=recurrent;3=attention) goes with strategy = \"schedule\", and the other way round",
          fields.where());
  fields.finish();
  return config;
}

Json MixingConfig::to_json() const {
  Json json{{"strategy", strategy},
            {"chunk", chunk},
            {"low", low},
            {"high", high},
            {"fraction", fraction},
            {"both", both},
            {"key_gradient", key_gradient}};
  if (!schedule.empty()) json["schedule"] = schedule;
  for (const auto& [name, weight] : weights) json["weights"][name] = weight;
  for (const Phase& phase : phases) {
    Json entry = phase.mixing.to_json();
    entry["until"] = phase.until;
    json["phases"].push_back(std::move(entry));
  }
  return json;
}

std::unique_ptr<MixingStrategy> make_mixing(const MixingConfig& config, const ModelConfig& model, int64_t context) {
  const bool attention = model.has(Mode::attention), recurrent = model.has(Mode::recurrent);
  require(config.strategy != "attention" || attention,
          "mixing.strategy is 'attention', but the model has no attention");
  require(config.strategy != "recurrent" || recurrent,
          "mixing.strategy is 'recurrent', but the model has no recurrent mixer");
  if (!attention || !recurrent) return std::make_unique<Pure>(attention ? Mode::attention : Mode::recurrent);
  const int64_t chunk = config.chunk > 0 ? config.chunk : std::clamp<int64_t>(context / 16, 1, 256);
  if (config.strategy == "attention") return std::make_unique<Pure>(Mode::attention);
  if (config.strategy == "recurrent") return std::make_unique<Pure>(Mode::recurrent);
  if (config.strategy == "alternate") return std::make_unique<Alternate>(chunk);
  if (config.strategy == "switch_once") return std::make_unique<SwitchOnce>();
  if (config.strategy == "tail") return std::make_unique<Tail>(config.fraction);
  if (config.strategy == "schedule") return std::make_unique<Fixed>(config.schedule, model);
  if (config.strategy == "mixture") return std::make_unique<Mixture>(config, model, context);
  if (config.strategy == "phases") return std::make_unique<Phases>(config, model, context);
  return std::make_unique<RandomChunks>(chunk, config.low, config.high);
}

int64_t passes(const MixingConfig& config, const ModelConfig& model) {
  return config.both && model.has(Mode::attention) && model.has(Mode::recurrent) ? 2 : 1;
}

}  // namespace oryx
