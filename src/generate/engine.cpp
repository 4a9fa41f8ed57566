#include "generate/engine.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace oryx {

MixerSchedule ScheduleRouter::read(const std::vector<int64_t>& tokens) {
  const int64_t begin = length_, end = begin + static_cast<int64_t>(tokens.size());
  require(end <= schedule_.length(), "the schedule covers {} tokens, but token {} is to be read", schedule_.length(),
          end);
  length_ = end;
  return schedule_.slice(begin, end);
}

bool ScheduleRouter::may_use(Mode mode) const {
  return length_ >= schedule_.length() || schedule_.slice(length_, schedule_.length()).uses(mode);
}

Generator::Generator(const LanguageModel& model, const std::vector<int64_t>& prompt, MixerSchedule schedule,
                     SamplingOptions options)
    : Generator(model, prompt, std::make_unique<ScheduleRouter>(std::move(schedule)), options) {}

Generator::Generator(const LanguageModel& model, const std::vector<int64_t>& prompt,
                     std::unique_ptr<SequenceRouter> router, SamplingOptions options)
    : model_(model),
      router_(std::move(router)),
      options_(options),
      cache_(model.make_cache(Cache::Options{.keep_inputs = false})) {
  require(!prompt.empty(), "the prompt is empty: give at least one token");
  require(options.temperature >= 0, "the temperature must be at least 0, but is {}", options.temperature);
  feed(prompt);
}

void Generator::feed(const std::vector<int64_t>& tokens) {
  c10::NoGradGuard no_grad;
  const int64_t layers = model_.config().num_hidden_layers;
  const MixerSchedule schedule = router_->read(tokens);
  mode_ = schedule.at(schedule.length() - 1, 0);
  attended_ += schedule.attention_fraction(layers) * static_cast<double>(schedule.length());
  const SequenceLayout layout({{schedule, cache_.length()}}, layers, model_.device());
  Cache* cache = &cache_;
  const at::Tensor hidden = model_.hidden(at::tensor(tokens), layout, {&cache, 1});
  logits_ = model_.logits(hidden.select(0, hidden.size(0) - 1));
  drop_what_is_over();
}

void Generator::drop_what_is_over() {
  if (cache_.has_kv() && !router_->may_use(Mode::attention)) cache_.drop_kv();
  if (cache_.has_state() && !router_->may_use(Mode::recurrent)) cache_.drop_state();
}

int64_t Generator::choose(const at::Tensor& logits) const {
  if (options_.temperature == 0) return logits.argmax().item<int64_t>();
  const at::Tensor sums = at::softmax(logits.to(at::kDouble) / options_.temperature, 0).cumsum(0).cpu();
  const double* p = sums.const_data_ptr<double>();
  const int64_t n = sums.numel();
  const double x = Random{options_.seed, static_cast<uint64_t>(cache_.length())}.uniform() * p[n - 1];
  return std::min<int64_t>(std::upper_bound(p, p + n, x) - p, n - 1);
}

GeneratedToken Generator::next() {
  if (pending_) feed({*pending_});
  const int64_t id = choose(logits_), position = cache_.length();
  pending_ = id;
  return {id, position, mode_, at::log_softmax(logits_, 0)[id].item<double>()};
}

}  // namespace oryx
