#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "model/config.h"

namespace oryx {

// Tokens [begin, end) of a sequence, served by one mode.
struct Span {
  int64_t begin, end;
  Mode mode;
  bool operator==(const Span&) const = default;
};

// Which mode serves which token of a sequence of known length: spans that cover [0, length) in order, neighbours of
// different modes, the same for all layers unless a layer has spans of its own. Immutable.
class MixerSchedule {
 public:
  MixerSchedule() = default;  // of an empty sequence
  static MixerSchedule uniform(Mode mode, int64_t length);
  // InputError unless the spans cover [0, length) exactly once, in any order; empty spans are dropped, equal neighbours
  // joined.
  static MixerSchedule from_spans(std::vector<Span> spans, int64_t length);
  MixerSchedule with_layer(int64_t layer, const MixerSchedule& other) const&;  // other.length() == length()
  MixerSchedule with_layer(int64_t layer, const MixerSchedule& other) &&;      // without a copy

  int64_t length() const { return length_; }
  const std::vector<Span>& spans(int64_t layer) const;  // that layer's own, or the common ones
  const std::vector<Span>& common() const { return common_; }
  const std::map<int64_t, std::vector<Span>>& layers() const { return layers_; }  // overrides
  Mode at(int64_t token, int64_t layer) const;
  MixerSchedule slice(int64_t begin, int64_t end) const;  // renumbered from 0
  MixerSchedule exchanged() const;                        // attention where this has recurrent, and the reverse
  bool uses(Mode mode) const;                             // in any layer
  // Tokens in attention over all tokens, averaged over `num_layers` layers.
  double attention_fraction(int64_t num_layers) const;
  // The span form of CONTRACT section 2: "recurrent:..900,attention:900..", a uniform one as "attention"; overrides as
  // "*=...;3=...". ScheduleSpec::parse(str()).resolve(length()) gives the same schedule.
  std::string str() const;
  bool operator==(const MixerSchedule&) const = default;

 private:
  int64_t length_ = 0;
  std::vector<Span> common_;
  std::map<int64_t, std::vector<Span>> layers_;
};

// A schedule as the user wrote it (CONTRACT section 2), not yet bound to a length.
class ScheduleSpec {
 public:
  // InputError, with what the grammar allows, when it does not parse.
  static ScheduleSpec parse(std::string_view text);
  // Bound to a sequence. InputError when spans overlap, leave a gap or pass the end; when it names a mode or mixer that
  // the model does not have, or a layer beyond the last.
  MixerSchedule resolve(int64_t length, const ModelConfig& config) const;
  // For generation, where spans are absolute positions and the last one, open at its end, goes on: like resolve for any
  // `length`, but negative positions and fractions (tail) are refused, and spans beyond `length` are allowed.
  MixerSchedule resolve_open(int64_t length, const ModelConfig& config) const;
  const std::string& text() const { return text_; }

  struct UniformPart {
    std::string mode;
  };
  struct SpansPart {
    struct Item {
      std::string mode;
      std::optional<int64_t> begin, end;
    };
    std::vector<Item> items;
  };
  struct AlternatePart {
    int64_t chunk;
  };  // recurrent first
  struct TailPart {
    double fraction;
  };  // attention for the last ceil(fraction * length)
  struct RandomPart {
    int64_t chunk;
    double probability;
    uint64_t seed;
  };  // of attention, per chunk
  using Part = std::variant<UniformPart, SpansPart, AlternatePart, TailPart, RandomPart>;

 private:
  std::string text_;
  Part common_;
  std::vector<std::pair<int64_t, Part>> layers_;
};

}  // namespace oryx
