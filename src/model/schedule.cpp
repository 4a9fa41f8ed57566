#include "model/schedule.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace oryx {
namespace {

std::string span_text(const Span& span) {
  return fmt::format("{}:{}..{}", mode_name(span.mode), span.begin, span.end);
}

std::vector<Span> clipped(const std::vector<Span>& spans, int64_t begin, int64_t end) {
  std::vector<Span> out;
  for (const Span& span : spans) {
    const Span part{std::max(span.begin, begin) - begin, std::min(span.end, end) - begin, span.mode};
    if (part.begin < part.end) out.push_back(part);
  }
  return out;
}

int64_t tokens_in_attention(const std::vector<Span>& spans) {
  int64_t tokens = 0;
  for (const Span& span : spans) tokens += span.mode == Mode::attention ? span.end - span.begin : 0;
  return tokens;
}

std::string text_of(const std::vector<Span>& spans) {
  // An empty sequence has no spans to print; any mode covers it.
  if (spans.empty()) return mode_name(Mode::attention);
  if (spans.size() == 1) return mode_name(spans[0].mode);
  std::string text;
  for (size_t i = 0; i < spans.size(); ++i) {
    text += fmt::format("{}{}:{}..{}", i == 0 ? "" : ",", mode_name(spans[i].mode),
                        i == 0 ? "" : std::to_string(spans[i].begin),
                        i + 1 == spans.size() ? "" : std::to_string(spans[i].end));
  }
  return text;
}

}  // namespace

MixerSchedule MixerSchedule::uniform(Mode mode, int64_t length) {
  return from_spans({{0, length, mode}}, length);
}

MixerSchedule MixerSchedule::from_spans(std::vector<Span> spans, int64_t length) {
  require(length >= 0, "a schedule cannot cover {} tokens; the length must not be negative", length);
  for (const Span& span : spans) {
    require(span.begin >= 0 && span.begin <= span.end, "the span {} ends before it begins, or begins before token 0",
            span_text(span));
    require(span.end <= length, "the span {} passes the end: there are {} tokens", span_text(span), length);
  }
  std::erase_if(spans, [](const Span& span) { return span.begin == span.end; });
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });

  MixerSchedule schedule;
  schedule.length_ = length;
  int64_t position = 0;
  for (const Span& span : spans) {
    require(span.begin >= position, "token {} is covered twice, the second time by {}; spans must not overlap",
            span.begin, span_text(span));
    require(span.begin == position, "tokens {}..{} are not covered; spans must cover each token once", position,
            span.begin);
    position = span.end;
    auto& common = schedule.common_;
    if (!common.empty() && common.back().mode == span.mode) {
      common.back().end = span.end;
    } else {
      common.push_back(span);
    }
  }
  require(position == length, "tokens {}..{} are not covered; spans must cover each token once", position, length);
  return schedule;
}

MixerSchedule MixerSchedule::with_layer(int64_t layer, const MixerSchedule& other) const& {
  return MixerSchedule(*this).with_layer(layer, other);
}

MixerSchedule MixerSchedule::with_layer(int64_t layer, const MixerSchedule& other) && {
  require(layer >= 0, "a schedule has no layer {}; layers count from 0", layer);
  require(other.length_ == length_, "layer {}'s schedule is for {} tokens, the others' for {}", layer, other.length_,
          length_);
  // A layer like all others needs no entry, so that equal schedules compare equal.
  if (other.spans(layer) == common_) {
    layers_.erase(layer);
  } else {
    layers_[layer] = other.spans(layer);
  }
  return std::move(*this);
}

const std::vector<Span>& MixerSchedule::spans(int64_t layer) const {
  const auto own = layers_.find(layer);
  return own == layers_.end() ? common_ : own->second;
}

Mode MixerSchedule::at(int64_t token, int64_t layer) const {
  require(token >= 0 && token < length_, "no token {} in a schedule of {}", token, length_);
  const std::vector<Span>& own = spans(layer);
  const auto after = std::upper_bound(own.begin(), own.end(), token,
                                      [](int64_t position, const Span& span) { return position < span.end; });
  return after->mode;
}

MixerSchedule MixerSchedule::slice(int64_t begin, int64_t end) const {
  require(0 <= begin && begin <= end && end <= length_, "tokens {}..{} are not a part of a schedule of {}", begin, end,
          length_);
  MixerSchedule result;
  result.length_ = end - begin;
  result.common_ = clipped(common_, begin, end);
  for (const auto& [layer, own] : layers_) {
    std::vector<Span> part = clipped(own, begin, end);
    if (part != result.common_) result.layers_.emplace(layer, std::move(part));
  }
  return result;
}

MixerSchedule MixerSchedule::exchanged() const {
  const auto exchange = [](std::vector<Span>& spans) {
    for (Span& span : spans) span.mode = span.mode == Mode::attention ? Mode::recurrent : Mode::attention;
  };
  MixerSchedule result = *this;
  exchange(result.common_);
  for (auto& [layer, own] : result.layers_) exchange(own);
  return result;
}

bool MixerSchedule::uses(Mode mode) const {
  const auto contains = [mode](const std::vector<Span>& spans) {
    return std::any_of(spans.begin(), spans.end(), [mode](const Span& span) { return span.mode == mode; });
  };
  return contains(common_) ||
         std::any_of(layers_.begin(), layers_.end(), [&](const auto& entry) { return contains(entry.second); });
}

double MixerSchedule::attention_fraction(int64_t num_layers) const {
  if (length_ == 0 || num_layers <= 0) return 0;
  double tokens = 0;
  int64_t own = 0;
  for (const auto& [layer, spans] : layers_) {
    if (layer >= num_layers) continue;
    tokens += static_cast<double>(tokens_in_attention(spans));
    ++own;
  }
  tokens += static_cast<double>(num_layers - own) * static_cast<double>(tokens_in_attention(common_));
  return tokens / (static_cast<double>(num_layers) * static_cast<double>(length_));
}

std::string MixerSchedule::str() const {
  if (layers_.empty()) return text_of(common_);
  // Layers with the same spans share an entry, in the order of their first layer.
  std::vector<std::pair<std::string, std::string>> groups;
  std::map<std::string, size_t> group_of;
  for (const auto& [layer, own] : layers_) {
    const std::string text = text_of(own);
    const auto [it, fresh] = group_of.emplace(text, groups.size());
    if (fresh) {
      groups.emplace_back(std::to_string(layer), text);
    } else {
      groups[it->second].first += fmt::format(",{}", layer);
    }
  }
  std::string text = "*=" + text_of(common_);
  for (const auto& [layers, spans] : groups) text += fmt::format(";{}={}", layers, spans);
  return text;
}

}  // namespace oryx
