#include "eval/scoring.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "eval/prefix_tree.h"

namespace oryx {
namespace {

constexpr size_t kRows = 256;  // tokens whose logits exist at a time

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
          predictions.push_back({segment.row + t - 1 - segment.begin, request.tokens[t], s});
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

  // By row, so that one row of logits answers all that ask for it; a sequence's own stay in their order.
  void score(const at::Tensor& hidden, std::vector<Prediction>& predictions) {
    std::ranges::stable_sort(predictions, {}, &Prediction::row);
    const auto longs = [&](const std::vector<int64_t>& x) { return at::tensor(x, at::kLong).to(model_.device()); };
    for (size_t begin = 0; begin < predictions.size();) {
      std::vector<int64_t> rows, places, targets;
      size_t end = begin;
      for (; end < predictions.size(); ++end) {
        if (rows.empty() || rows.back() != predictions[end].row) {
          if (rows.size() == kRows) break;
          rows.push_back(predictions[end].row);
        }
        places.push_back(static_cast<int64_t>(rows.size()) - 1);
        targets.push_back(predictions[end].target);
      }
      const at::Tensor logits = model_.logits(hidden.index_select(0, longs(rows)));
      const at::Tensor target = logits.index({longs(places), longs(targets)});
      const at::Tensor p =
          (target - at::logsumexp(logits, -1).index_select(0, longs(places))).to(at::kCPU, at::kDouble);
      // argmax is slow, and only a target as probable as any can be it.
      const at::Tensor top = (target == logits.amax(-1).index_select(0, longs(places))).cpu();
      for (size_t i = begin; i < end; ++i) {
        ScoringResult& result = results_[predictions[i].sequence];
        result.logprobs.push_back(p.const_data_ptr<double>()[i - begin]);
        result.greedy = result.greedy && top.const_data_ptr<bool>()[i - begin] &&
                        logits[places[i - begin]].argmax().item<int64_t>() == targets[i - begin];
      }
      begin = end;
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
    sequences.push_back({std::span(request.tokens).first(std::max<int64_t>(length - 1, 0)), &request.schedule});
  }
  Scorer scorer(model, requests, done);
  read_sharing_prefixes(
      model, sequences, batch_tokens, /*keep_caches=*/false,
      [&](const at::Tensor& hidden, std::span<const Segment> pieces) { scorer.visit(hidden, pieces); });
  return scorer.take();
}

}  // namespace oryx
