#include "eval/scoring.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "base/error.h"

namespace oryx {
namespace {

constexpr int64_t kRows = 256;  // tokens whose logits exist at a time

// Rows of `hidden` that predict a scored token, and those tokens, block by block.
void score_batch(const LanguageModel& model, const std::vector<ScoringRequest>& requests, size_t begin, size_t end,
                 std::vector<ScoringResult>& results) {
  std::vector<SequenceSpec> sequences;
  std::vector<int64_t> tokens, rows, targets;
  std::vector<size_t> owner;
  for (size_t i = begin; i < end; ++i) {
    const auto& request = requests[i];
    const auto length = static_cast<int64_t>(request.tokens.size());
    require(request.first_scored >= 1 && request.schedule.length() == length - 1,
            "a sequence to be scored needs a token before those scored and a schedule of all tokens but the last");
    if (length < 2) continue;
    for (int64_t t = request.first_scored; t < length; ++t) {
      rows.push_back(static_cast<int64_t>(tokens.size()) + t - 1);
      targets.push_back(request.tokens[t]);
      owner.push_back(i);
    }
    sequences.push_back({request.schedule});
    tokens.insert(tokens.end(), request.tokens.begin(), request.tokens.end() - 1);
  }
  if (rows.empty()) return;
  const auto longs = [&](const std::vector<int64_t>& x) { return at::tensor(x, at::kLong).to(model.device()); };
  const SequenceLayout layout(std::move(sequences), model.config().num_hidden_layers, model.device());
  const at::Tensor hidden = model.hidden(longs(tokens), layout).index_select(0, longs(rows));
  const at::Tensor wanted = longs(targets);
  for (int64_t r = 0; r < hidden.size(0); r += kRows) {
    const int64_t stop = std::min(r + kRows, hidden.size(0));
    const at::Tensor logits = model.logits(hidden.slice(0, r, stop)), target = wanted.slice(0, r, stop);
    const at::Tensor p =
        at::log_softmax(logits, -1).gather(-1, target.unsqueeze(-1)).squeeze(-1).to(at::kCPU, at::kDouble);
    const at::Tensor hit = (logits.argmax(-1) == target).cpu();
    for (int64_t i = r; i < stop; ++i) {
      results[owner[i]].logprobs.push_back(p[i - r].item<double>());
      results[owner[i]].greedy &= hit[i - r].item<bool>();
    }
  }
}

}  // namespace

std::vector<ScoringResult> score_sequences(const LanguageModel& model, const std::vector<ScoringRequest>& requests,
                                           int64_t batch_tokens) {
  c10::NoGradGuard no_grad;
  std::vector<ScoringResult> results(requests.size());
  for (size_t begin = 0; begin < requests.size();) {
    size_t end = begin;
    for (int64_t count = 0; end < requests.size() && (end == begin || count < batch_tokens); ++end)
      count += static_cast<int64_t>(requests[end].tokens.size());
    score_batch(model, requests, begin, end, results);
    begin = end;
  }
  return results;
}

}  // namespace oryx
