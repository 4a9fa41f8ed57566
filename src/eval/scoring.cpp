#include "eval/scoring.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "eval/prefix_tree.h"
#include "ops/common/packing.h"

namespace oryx {
namespace {

constexpr size_t kRows = 256;

class Scorer {
 public:
  Scorer(const LanguageModel& model, const std::vector<ScoringRequest>& requests,
         const std::function<void(int64_t)>& done)
      : model_(model), requests_(requests), done_(done), results_(requests.size()) {}

  void visit(const at::Tensor& hidden, std::span<const Segment> segments) {
    std::vector<Prediction> predictions;
    for (const Segment& segment : segments) {
      for (const size_t s : segment.sequences) {
        const ScoringRequest& request = requests_[s];
        const auto length = static_cast<int64_t>(request.tokens.size());
        const int64_t stop = std::min(length, segment.end + 1);
        for (int64_t t = std::max(request.first_scored, segment.begin + 1); t < stop; ++t)
          predictions.push_back({segment.row + t - 1 - segment.wanted, request.tokens[t], s});
        finished_ += segment.end + 1 == length;
      }
    }
    if (!predictions.empty()) score(hidden, predictions);
    if (done_) done_(finished_);
  }

  std::vector<ScoringResult> take() { return std::move(results_); }

 private:
  struct Prediction {
    int64_t row;  // of the hidden states
    int64_t target;
    size_t sequence;
  };

  void score(const at::Tensor& hidden, const std::vector<Prediction>& predictions) {
    std::vector<int64_t> places, targets;
    for (const Prediction& prediction : predictions) {
      places.push_back(prediction.row);
      targets.push_back(prediction.target);
    }
    const at::Tensor rows = hidden.index_select(0, ops::upload(places, model_.device()));
    const auto scores = model_.log_probs(rows, at::tensor(targets));
    const at::Tensor p = std::get<0>(scores).to(at::kCPU, at::kDouble),
                     best = std::get<1>(scores).to(at::kCPU, at::kDouble);
    std::vector<std::pair<size_t, size_t>> perhaps;  // predictions of sequences that may be greedy
    for (size_t begin = 0, end = 0; begin < predictions.size(); begin = end) {
      ScoringResult& result = results_[predictions[begin].sequence];
      for (; end < predictions.size() && predictions[end].sequence == predictions[begin].sequence; ++end) {
        result.logprobs.push_back(p.const_data_ptr<double>()[end]);
        // Only a target as probable as any can be the first of the most probable ones.
        result.greedy = result.greedy && p.const_data_ptr<double>()[end] == best.const_data_ptr<double>()[end];
      }
      if (result.greedy) perhaps.emplace_back(begin, end);
    }
    // Of equal logits the first one counts; kRows of them exist at a time.
    for (size_t first = 0, last = 0; first < perhaps.size(); first = last) {
      std::vector<at::Tensor> chosen;
      for (size_t taken = 0; last < perhaps.size() && (last == first || taken < kRows); ++last) {
        chosen.push_back(rows.slice(0, perhaps[last].first, perhaps[last].second));
        taken += perhaps[last].second - perhaps[last].first;
      }
      const at::Tensor top = model_.logits(at::cat(chosen)).argmax(-1).cpu();
      const int64_t* next = top.const_data_ptr<int64_t>();
      for (size_t i = first; i < last; ++i)
        for (size_t j = perhaps[i].first; j < perhaps[i].second; ++j)
          if (*next++ != predictions[j].target) results_[predictions[j].sequence].greedy = false;
    }
  }

  const LanguageModel& model_;
  const std::vector<ScoringRequest>& requests_;
  const std::function<void(int64_t)>& done_;
  std::vector<ScoringResult> results_;
  int64_t finished_ = 0;
};

}  // namespace

double ScoringResult::sum() const {
  return std::accumulate(logprobs.begin(), logprobs.end(), 0.0);
}

std::vector<ScoringResult> score_sequences(const LanguageModel& model, const std::vector<ScoringRequest>& requests,
                                           int64_t batch_tokens, const std::function<void(int64_t)>& done) {
  std::vector<ReadSequence> sequences;
  sequences.reserve(requests.size());
  for (const ScoringRequest& request : requests) {
    const auto length = static_cast<int64_t>(request.tokens.size());
    require(request.first_scored >= 1 && request.schedule.length() == length - 1,
            "a sequence to be scored needs a token before those scored and a schedule of all tokens but the last");
    for (const int64_t id : request.tokens)
      require(id >= 0 && id < model.config().vocab_size, "token id {} is outside the vocabulary of {}", id,
              model.config().vocab_size);
    sequences.push_back({std::span(request.tokens).first(std::max<int64_t>(length - 1, 0)), &request.schedule,
                         request.first_scored - 1});
  }
  Scorer scorer(model, requests, done);
  read_sharing_prefixes(
      model, sequences, batch_tokens, /*keep_caches=*/false,
      [&](const at::Tensor& hidden, std::span<const Segment> pieces) { scorer.visit(hidden, pieces); });
  return scorer.take();
}

}  // namespace oryx
