#include "generate/routing.h"

#include <algorithm>
#include <numeric>

namespace oryx {

namespace {
constexpr double kWhole = 0.5;  // so much of a token counts as one
}

std::vector<Span> route_known(std::span<const double> scores, RoutingBudget budget) {
  struct Chunk {
    int64_t begin, end;
    double mean;
  };
  const auto length = static_cast<int64_t>(scores.size());
  std::vector<Chunk> chunks;
  for (int64_t begin = 0; begin < length; begin += budget.chunk) {
    const int64_t end = std::min(begin + budget.chunk, length);
    const double sum = std::accumulate(scores.begin() + begin, scores.begin() + end, 0.0);
    chunks.push_back({begin, end, sum / static_cast<double>(end - begin)});
  }
  std::vector<Chunk> best = chunks;
  std::stable_sort(best.begin(), best.end(), [](const Chunk& a, const Chunk& b) {
    return a.mean != b.mean ? a.mean > b.mean : a.begin > b.begin;
  });
  std::vector<Span> spans;
  double left = budget.fraction * static_cast<double>(length);
  for (const Chunk& chunk : best) {
    // Each chunk is taken when that brings the sum nearer to the budget.
    const auto size = static_cast<double>(chunk.end - chunk.begin);
    const bool taken = left >= size / 2;
    if (taken) left -= size;
    spans.push_back({chunk.begin, chunk.end, taken ? Mode::attention : Mode::recurrent});
  }
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  return spans;
}

void CausalRouter::remember(double score) {
  recent_.push_back(score);
  sorted_.insert(std::upper_bound(sorted_.begin(), sorted_.end(), score), score);
  if (std::ssize(recent_) <= kWindow) return;
  sorted_.erase(std::lower_bound(sorted_.begin(), sorted_.end(), recent_.front()));
  recent_.pop_front();
}

void CausalRouter::observe(std::span<const double> scores, std::span<const Span> spans) {
  for (double score : scores.last(std::min<size_t>(scores.size(), kWindow))) remember(score);
  due_ += budget_.fraction * static_cast<double>(scores.size());
  for (const Span& span : spans)
    if (span.mode == Mode::attention) due_ -= static_cast<double>(span.end - span.begin);
}

void CausalRouter::save(std::span<const double> scores) {
  for (double score : scores.last(std::min<size_t>(scores.size(), kWindow))) remember(score);
  saved_ += budget_.fraction * static_cast<double>(scores.size());
}

Mode CausalRouter::next(double score) {
  if (in_chunk_ == 0) {
    const auto higher = static_cast<double>(sorted_.end() - std::upper_bound(sorted_.begin(), sorted_.end(), score));
    // Half a token more than were seen: the first ones, which have nothing to be compared with, count as middling.
    const double part = (higher + 0.5) / static_cast<double>(sorted_.size() + 1);
    const bool stands_out = part < budget_.fraction + due_ / kWindow;
    mode_ = stands_out || (saved_ >= kWhole && score > 0) ? Mode::attention : Mode::recurrent;
  }
  advance();
  remember(score);
  return mode_;
}

Mode CausalRouter::next_unknown() {
  if (in_chunk_ == 0) mode_ = saved_ >= kWhole ? Mode::attention : Mode::recurrent;
  advance();
  return mode_;
}

void CausalRouter::advance() {
  in_chunk_ = (in_chunk_ + 1) % budget_.chunk;
  due_ += budget_.fraction;
  if (mode_ == Mode::recurrent) return;
  if (saved_ >= kWhole) {
    saved_ -= 1;
  } else {
    due_ -= 1;
  }
}

}  // namespace oryx
