#include "generate/token_score.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <utility>

#include "generate/repeats.h"

namespace oryx {
namespace {

constexpr int64_t kRows = 256;  // tokens whose logits exist at a time

template <typename Score>
at::Tensor by_rows(const LanguageModel& model, const at::Tensor& hidden, const Score& score) {
  std::vector<at::Tensor> scores;
  int64_t begin = 0;
  do {
    scores.push_back(score(model.logits(hidden.slice(0, begin, begin + kRows))));
    begin += kRows;
  } while (begin < hidden.size(0));
  return at::cat(scores);
}

}  // namespace

ReadTokens::ReadTokens(at::Tensor hidden_in, const std::vector<float>& repeats_in) : hidden(std::move(hidden_in)) {
  if (!repeats_in.empty())
    repeats = at::tensor(repeats_in, at::kFloat).view({-1, Repeats::kFeatures}).to(hidden.device());
}

at::Tensor EntropyScore::operator()(const LanguageModel& model, const ReadTokens& tokens) const {
  return by_rows(model, tokens.hidden, [](const at::Tensor& logits) {
    const at::Tensor p = at::log_softmax(logits, -1);
    return -(p * p.exp()).sum(-1);
  });
}

at::Tensor MarginScore::operator()(const LanguageModel& model, const ReadTokens& tokens) const {
  return by_rows(model, tokens.hidden, [](const at::Tensor& logits) {
    const at::Tensor best = std::get<0>(at::softmax(logits, -1).topk(2, -1));
    return 1 - (best.select(-1, 0) - best.select(-1, 1));
  });
}

}  // namespace oryx
