#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "model/schedule.h"

namespace oryx {
namespace {

constexpr const char* kGrammar =
    "a schedule is attention, recurrent, spans such as recurrent:..900,attention:900.., alternate:CHUNK, "
    "tail:FRACTION, "
    "random:CHUNK:PROBABILITY:SEED, or per layer *=recurrent;3,7=attention";
constexpr size_t kMaxText = size_t{1} << 20;
// Of all layers together: alternate:1 in thousands of layers would fill the memory.
constexpr int64_t kMaxSpans = int64_t{1} << 22;
constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

using Part = ScheduleSpec::Part;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t at = text.find(separator);
    parts.push_back(trim(text.substr(0, at)));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

template <typename Number>
std::optional<Number> number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_mode(std::string_view name) {
  return name == "attention" || name == "recurrent" || name == "mamba2" || name == "gated_deltanet";
}

int64_t parse_chunk(std::string_view text) {
  const auto chunk = number<int64_t>(text);
  require(chunk && *chunk > 0, "'{}' is not a chunk length; it must be a number of tokens, at least 1", excerpt(text));
  return *chunk;
}

double parse_fraction(std::string_view text, const char* what) {
  const auto fraction = number<double>(text);
  require(fraction && *fraction >= 0 && *fraction <= 1, "'{}' is not a {}; it must be from 0 to 1", excerpt(text),
          what);
  return *fraction + 0.0;  // -0 becomes 0
}

std::optional<int64_t> parse_position(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const auto position = number<int64_t>(text);
  require(position && !(*position == 0 && text.front() == '-'),
          "'{}' is not a position; it must be a token's number, negative from the end, or nothing for the edge",
          excerpt(text));
  return position;
}

ScheduleSpec::SpansPart parse_spans(std::string_view text) {
  ScheduleSpec::SpansPart part;
  for (std::string_view item : split(text, ',')) {
    const size_t colon = item.find(':');
    const std::string_view mode = trim(item.substr(0, colon));
    if (!is_mode(mode))
      input_error("'{}' is not a mode{}; {}", excerpt(mode),
                  did_you_mean(mode, {"attention", "recurrent", "mamba2", "gated_deltanet"}), kGrammar);
    const std::string_view range = colon == std::string_view::npos ? "" : item.substr(colon + 1);
    const size_t dots = range.find("..");
    require(dots != std::string_view::npos, "'{}' is not a span; it must be MODE:BEGIN..END", excerpt(item));
    part.items.push_back(
        {std::string(mode), parse_position(trim(range.substr(0, dots))), parse_position(trim(range.substr(dots + 2)))});
  }
  return part;
}

Part parse_part(std::string_view text) {
  if (is_mode(text)) return ScheduleSpec::UniformPart{std::string(text)};
  const std::vector<std::string_view> words = split(text, ':');
  const auto want = [&](size_t count, const char* form) {
    require(words.size() == count, "'{}' must have the form {}", excerpt(text), form);
  };
  if (words[0] == "alternate") {
    want(2, "alternate:CHUNK");
    return ScheduleSpec::AlternatePart{parse_chunk(words[1])};
  }
  if (words[0] == "tail") {
    want(2, "tail:FRACTION");
    return ScheduleSpec::TailPart{parse_fraction(words[1], "fraction")};
  }
  if (words[0] == "random") {
    want(4, "random:CHUNK:PROBABILITY:SEED");
    const auto seed = number<uint64_t>(words[3]);
    require(seed.has_value(), "'{}' is not a seed; it must be an integer from 0 to 2^64-1", excerpt(words[3]));
    return ScheduleSpec::RandomPart{parse_chunk(words[1]), parse_fraction(words[2], "probability"), *seed};
  }
  if (text.find("..") != std::string_view::npos) return parse_spans(text);
  input_error(
      "'{}' is not a schedule{}; {}", excerpt(text),
      did_you_mean(words[0], {"attention", "recurrent", "mamba2", "gated_deltanet", "alternate", "tail", "random"}),
      kGrammar);
}

// Runs `work` so that its errors begin with the schedule they are about.
template <typename Work>
auto naming(std::string_view text, Work&& work) {
  try {
    return work();
  } catch (const InputError& error) {
    input_error("schedule '{}': {}", excerpt(text), error.what());
  }
}

Mode mode_of(const std::string& name, const ModelConfig& config) {
  const Mode mode = name == "attention" ? Mode::attention : Mode::recurrent;
  const char* own = config.recurrent() ? mixer_name(*config.recurrent()) : "attention";
  require(config.has(mode), "the model has no {} mixer; its only one is {}",
          mode == Mode::attention ? "attention" : "recurrent", own);
  require(mode == Mode::attention || name == "recurrent" || name == own,
          "it names {}, but the model's recurrence is {}", name, own);
  return mode;
}

// Binds one part to `length` tokens. Open: positions are absolute, and spans may go on past `length`.
class Resolver {
 public:
  Resolver(int64_t length, const ModelConfig& config, bool open, int64_t& budget)
      : length_(length), config_(config), open_(open), budget_(budget) {}

  MixerSchedule operator()(const ScheduleSpec::UniformPart& part) const {
    return MixerSchedule::uniform(mode_of(part.mode, config_), length_);
  }

  MixerSchedule operator()(const ScheduleSpec::SpansPart& part) const {
    spend(static_cast<int64_t>(part.items.size()));
    const int64_t end = open_ ? kEndless : length_;
    const auto position = [&](const std::optional<int64_t>& given, int64_t edge) {
      if (!given) return edge;
      require(!open_ || *given >= 0,
              "{} counts from the end, which generation does not know; use positions from the start", *given);
      require(*given >= -length_ || open_, "{} lies before the first of {} tokens", *given, length_);
      return *given < 0 ? length_ + *given : *given;
    };
    std::vector<Span> spans;
    for (const auto& item : part.items) {
      spans.push_back({position(item.begin, 0), position(item.end, end), mode_of(item.mode, config_)});
    }
    if (!open_) return MixerSchedule::from_spans(std::move(spans), length_);
    const bool endless = std::any_of(spans.begin(), spans.end(), [](const Span& s) { return s.end == kEndless; });
    require(endless, "the last span must be open at its end (MODE:BEGIN..), since generation goes on");
    return MixerSchedule::from_spans(std::move(spans), kEndless).slice(0, length_);
  }

  MixerSchedule operator()(const ScheduleSpec::AlternatePart& part) const {
    require_both("alternate");
    return chunks(part.chunk, [](int64_t chunk) { return chunk % 2 == 0 ? Mode::recurrent : Mode::attention; });
  }

  MixerSchedule operator()(const ScheduleSpec::TailPart& part) const {
    require(!open_, "tail counts from the end, which generation does not know; use positions from the start");
    require_both("tail");
    const double exact = part.fraction * static_cast<double>(length_);
    // A product such as 0.07 * 100 = 7.000000000000001 means 7.
    const double nearest = std::round(exact);
    const double tail = std::abs(exact - nearest) <= 1e-9 * std::max(1.0, exact) ? nearest : std::ceil(exact);
    const int64_t begin = length_ - std::min(length_, static_cast<int64_t>(tail));
    return MixerSchedule::from_spans({{0, begin, Mode::recurrent}, {begin, length_, Mode::attention}}, length_);
  }

  MixerSchedule operator()(const ScheduleSpec::RandomPart& part) const {
    require_both("random");
    // One draw per chunk in order: a longer sequence begins with the same modes.
    Random random{part.seed};
    return chunks(part.chunk,
                  [&](int64_t) { return random.uniform() < part.probability ? Mode::attention : Mode::recurrent; });
  }

 private:
  void require_both(const char* form) const {
    require(config_.has(Mode::attention) && config_.has(Mode::recurrent),
            "{} needs a model with attention and a recurrence; this one has only {}", form,
            mixer_name(config_.mixers[0]));
  }

  void spend(int64_t spans) const {
    require(spans <= budget_, "it makes more than {} spans; use longer chunks", kMaxSpans);
    budget_ -= spans;
  }

  template <typename ModeOfChunk>
  MixerSchedule chunks(int64_t chunk, ModeOfChunk&& mode_of_chunk) const {
    spend(length_ / chunk + 1);
    std::vector<Span> spans;
    for (int64_t begin = 0, i = 0; begin < length_; ++i) {
      const int64_t end = chunk < length_ - begin ? begin + chunk : length_;
      spans.push_back({begin, end, mode_of_chunk(i)});
      begin = end;
    }
    return MixerSchedule::from_spans(std::move(spans), length_);
  }

  int64_t length_;
  const ModelConfig& config_;
  bool open_;
  int64_t& budget_;
};

MixerSchedule resolve_parts(const Part& common, const std::vector<std::pair<int64_t, Part>>& layers, int64_t length,
                            const ModelConfig& config, bool open) {
  // No token, nothing to serve; and the text of an empty schedule is readable by every model.
  if (length == 0) return {};
  int64_t budget = kMaxSpans;
  const Resolver resolver(length, config, open, budget);
  MixerSchedule schedule = std::visit(resolver, common);
  for (const auto& [layer, part] : layers) {
    require(layer < config.num_hidden_layers, "it names layer {}, but the model's layers are 0 to {}", layer,
            config.num_hidden_layers - 1);
    schedule = std::move(schedule).with_layer(layer, std::visit(resolver, part));
  }
  return schedule;
}

}  // namespace

ScheduleSpec ScheduleSpec::parse(std::string_view text) {
  require(text.size() <= kMaxText, "a schedule of {} bytes; the limit is {}", text.size(), kMaxText);
  text = trim(text);
  require(!text.empty(), "an empty schedule; {}", kGrammar);
  return naming(text, [&] {
    ScheduleSpec spec;
    spec.text_ = text;
    if (text.find('=') == std::string_view::npos) {
      spec.common_ = parse_part(text);
      return spec;
    }
    bool has_common = false;
    std::set<int64_t> seen;
    for (std::string_view entry : split(text, ';')) {
      const size_t equals = entry.find('=');
      require(equals != std::string_view::npos, "'{}' must have the form LAYERS=SCHEDULE", excerpt(entry));
      const std::string_view layers = trim(entry.substr(0, equals));
      const Part part = parse_part(trim(entry.substr(equals + 1)));
      if (layers == "*") {
        require(!has_common, "'*=' appears twice; the other layers can have only one schedule");
        has_common = true;
        spec.common_ = part;
        continue;
      }
      for (std::string_view word : split(layers, ',')) {
        const auto layer = number<int64_t>(word);
        require(layer && *layer >= 0, "'{}' is not a layer; it must be a number from 0, or * for the other layers",
                excerpt(word));
        require(seen.insert(*layer).second, "layer {} appears twice", *layer);
        spec.layers_.emplace_back(*layer, part);
      }
    }
    require(has_common, "no '*=', which gives the schedule of the layers that are not named");
    return spec;
  });
}

MixerSchedule ScheduleSpec::resolve(int64_t length, const ModelConfig& config) const {
  return naming(text_, [&] { return resolve_parts(common_, layers_, length, config, false); });
}

MixerSchedule ScheduleSpec::resolve_open(int64_t length, const ModelConfig& config) const {
  return naming(text_, [&] { return resolve_parts(common_, layers_, length, config, true); });
}

}  // namespace oryx
